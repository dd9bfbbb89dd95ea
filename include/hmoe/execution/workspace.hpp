// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/huge_pages.hpp>

#include <cstddef>
#include <memory_resource>
#include <new>

namespace hmoe {

/// Scratch memory of forward and backward passes: a stack of bytes that the caller owns. Passes open a
/// `workspace::scope`, take what they need and give all of it back at its end. When the reserved block is too small,
/// extra blocks are taken from the heap, and at the end of the outermost scope the block grows to the largest use
/// seen: from the second pass of the same size on nothing is allocated. `moe_layer::workspace_bytes` tells what to
/// reserve so that the first pass allocates nothing either. Not for use by several threads at once.
class workspace final : public std::pmr::memory_resource {
public:
  explicit workspace(std::size_t bytes = 0) { reserve(bytes); }
  workspace(const workspace&) = delete;
  workspace& operator=(const workspace&) = delete;
  ~workspace() override {
    free_overflow();
    free_block();
  }

  /// Makes the block at least this large; not while a scope is open.
  void reserve(std::size_t bytes) {
    require(depth_ == 0, "workspace::reserve(", bytes, ") while a pass is using the workspace");
    if (bytes <= capacity_)
      return;
    free_block();
    block_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{memory_alignment}));
    capacity_ = bytes;
    prefer_huge_pages(block_, bytes);
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// The most bytes that were in use at one time.
  [[nodiscard]] std::size_t peak() const noexcept { return peak_; }

  /// Everything allocated while it lives is given back when it ends.
  class scope {
  public:
    explicit scope(workspace& memory) noexcept : memory_(memory), mark_(memory.used_) { ++memory_.depth_; }
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;
    ~scope() {
      memory_.used_ = mark_;
      if (--memory_.depth_ == 0)
        memory_.consolidate();
    }

  private:
    workspace& memory_;
    std::size_t mark_;
  };

private:
  struct overflow_block {
    overflow_block* next;
    std::size_t bytes;
  };

  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    require(alignment <= memory_alignment, "the workspace aligns to ", memory_alignment, " bytes, ", alignment,
            " were asked for");
    require(depth_ > 0, "workspace: ", bytes, " bytes were asked for outside of a workspace::scope");
    bytes = aligned_bytes<std::byte>(bytes == 0 ? 1 : bytes);
    // used_ counts all bytes, those of overflow blocks too, so that peak_ is what one block would need.
    const std::size_t begin = used_;
    used_ += bytes;
    peak_ = used_ > peak_ ? used_ : peak_;
    if (used_ <= capacity_)
      return block_ + begin;
    auto* raw = static_cast<std::byte*>(::operator new(bytes + memory_alignment, std::align_val_t{memory_alignment}));
    overflow_ = ::new (raw) overflow_block{overflow_, bytes};
    return raw + memory_alignment;
  }
  void do_deallocate(void*, std::size_t, std::size_t) override {} // a stack: scopes give memory back
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  void consolidate() noexcept {
    if (overflow_ == nullptr)
      return;
    free_overflow();
    // Out of memory: the next pass takes overflow blocks again, or reports it.
    static_cast<void>(exception_of([this] { reserve(peak_); }));
  }
  void free_overflow() noexcept {
    while (overflow_ != nullptr) {
      overflow_block* next = overflow_->next;
      ::operator delete(static_cast<void*>(overflow_), std::align_val_t{memory_alignment});
      overflow_ = next;
    }
  }
  void free_block() noexcept {
    if (block_ != nullptr)
      ::operator delete(static_cast<void*>(block_), std::align_val_t{memory_alignment});
    block_ = nullptr;
    capacity_ = 0;
  }

  std::byte* block_ = nullptr;
  overflow_block* overflow_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0, peak_ = 0, depth_ = 0;
};

} // namespace hmoe
