// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/huge_pages.hpp>

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <new>
#include <span>

namespace hmoe {

/// Says that a workspace hands out no memory and only counts.
struct dry_run {};

/// Scratch memory of forward and backward passes: a stack of bytes that the caller owns. Passes open a
/// `workspace::scope`, take what they need and give all of it back at its end. When the reserved block is too small,
/// extra blocks are taken from the upstream resource, by default the heap, and at the end of the outermost scope the
/// block grows to the largest use seen: from the second pass of the same size on nothing is allocated.
/// `moe_layer::workspace_bytes` tells what to reserve so that the first pass allocates nothing either. The block may be
/// the caller's; with std::pmr::null_memory_resource() as upstream it never grows, and a pass that needs more is an
/// hmoe::error with the number of bytes. Not for use by several threads at once.
///
/// `workspace dry{dry_run{}}` is for code that lays out memory: it hands out addresses that nobody may read or write,
/// and peak() tells what the same code would take from a real one.
class workspace final : public std::pmr::memory_resource {
public:
  /// Reserves `bytes` bytes of the upstream resource, which must outlive the workspace.
  explicit workspace(std::size_t bytes = 0, std::pmr::memory_resource* upstream = std::pmr::new_delete_resource())
      : upstream_(upstream) {
    reserve(bytes);
  }
  /// Works in the caller's memory, which must outlive the workspace: its whole cache lines, of which capacity() tells
  /// the bytes. When these are too few the workspace continues upstream, and the caller's memory is not used any more.
  explicit workspace(std::span<std::byte> memory,
                     std::pmr::memory_resource* upstream = std::pmr::new_delete_resource()) noexcept
      : upstream_(upstream) {
    const std::size_t beyond = reinterpret_cast<std::uintptr_t>(memory.data()) % memory_alignment;
    const std::size_t skipped = beyond == 0 ? 0 : memory_alignment - beyond;
    if (memory.size() >= skipped + memory_alignment) {
      block_ = memory.data() + skipped;
      capacity_ = (memory.size() - skipped) / memory_alignment * memory_alignment;
      borrowed_ = true;
    }
  }
  /// Counts what is asked for, and has no memory.
  explicit workspace(dry_run) noexcept : upstream_(std::pmr::null_memory_resource()), dry_(true) {}
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
    check_upstream(bytes);
    free_block();
    block_ = static_cast<std::byte*>(upstream_->allocate(bytes, memory_alignment));
    capacity_ = bytes;
    if (*upstream_ == *std::pmr::new_delete_resource())
      prefer_huge_pages(block_, bytes);
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// The most bytes that were in use at one time.
  [[nodiscard]] std::size_t peak() const noexcept { return peak_; }
  [[nodiscard]] std::pmr::memory_resource* upstream() const noexcept { return upstream_; }

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
    const std::size_t begin = used_, end = used_ + bytes;
    std::byte* result = nullptr;
    if (dry_) {
      result = reinterpret_cast<std::byte*>(memory_alignment); // NOLINT: an address that nobody uses
    } else if (end <= capacity_) {
      result = block_ + begin;
    } else {
      check_upstream(end);
      auto* raw = static_cast<std::byte*>(upstream_->allocate(bytes + memory_alignment, memory_alignment));
      overflow_ = ::new (raw) overflow_block{overflow_, bytes};
      result = raw + memory_alignment;
    }
    used_ = end;
    peak_ = used_ > peak_ ? used_ : peak_;
    return result;
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
      upstream_->deallocate(overflow_, overflow_->bytes + memory_alignment, memory_alignment);
      overflow_ = next;
    }
  }
  void free_block() noexcept {
    if (block_ != nullptr && !borrowed_)
      upstream_->deallocate(block_, capacity_, memory_alignment);
    block_ = nullptr;
    capacity_ = 0;
    borrowed_ = false;
  }
  void check_upstream(std::size_t bytes) const {
    require(*upstream_ != *std::pmr::null_memory_resource(), "the workspace has ", capacity_, " bytes, ", bytes,
            " are needed, and it may not grow: give it more memory (see moe_layer::workspace_bytes), or an upstream "
            "resource");
  }

  std::pmr::memory_resource* upstream_;
  std::byte* block_ = nullptr;
  overflow_block* overflow_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0, peak_ = 0, depth_ = 0;
  bool borrowed_ = false; ///< block_ is the caller's
  bool dry_ = false;      ///< counts only
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
