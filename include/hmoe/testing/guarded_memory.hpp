// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <new>
#include <vector>

namespace hmoe::testing {

/// A heap whose blocks lie between margins that must stay as they are. All bits of a new block are set, which is NaN in
/// floating point. For one thread at a time.
class guarded_memory final : public std::pmr::memory_resource {
public:
  guarded_memory() = default;
  guarded_memory(const guarded_memory&) = delete;
  guarded_memory& operator=(const guarded_memory&) = delete;
  ~guarded_memory() override {
    for (const block& b : blocks_)
      free(b);
  }

  /// Whether nobody wrote beside a block, of those that were given back too.
  [[nodiscard]] bool intact() const noexcept { return intact_ && std::ranges::all_of(blocks_, margins_intact); }
  /// The most bytes that were in use at one time.
  [[nodiscard]] std::size_t peak() const noexcept { return peak_; }

private:
  static constexpr std::byte mark{0xa5};
  static constexpr std::size_t margin = memory_alignment;
  struct block {
    std::byte* begin;
    std::size_t bytes;
  };

  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    require(alignment <= memory_alignment, "guarded_memory aligns to ", memory_alignment, " bytes, ", alignment,
            " were asked for");
    auto* memory = static_cast<std::byte*>(::operator new(bytes + 2 * margin, std::align_val_t{memory_alignment}));
    std::fill_n(memory, margin, mark);
    std::fill_n(memory + margin, bytes, std::byte{0xff});
    std::fill_n(memory + margin + bytes, margin, mark);
    blocks_.push_back({memory + margin, bytes});
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    return memory + margin;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t) override {
    const auto found = std::ranges::find(blocks_, memory, [](const block& b) -> void* { return b.begin; });
    if (found == blocks_.end() || found->bytes != bytes) {
      intact_ = false; // not a block of this heap
      return;
    }
    intact_ = intact_ && margins_intact(*found);
    used_ -= bytes;
    free(*found);
    blocks_.erase(found);
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  static bool margins_intact(const block& b) noexcept {
    const auto marked = [](const std::byte* from) {
      return std::all_of(from, from + margin, [](std::byte value) { return value == mark; });
    };
    return marked(b.begin - margin) && marked(b.begin + b.bytes);
  }
  static void free(const block& b) noexcept {
    ::operator delete(static_cast<void*>(b.begin - margin), std::align_val_t{memory_alignment});
  }

  std::vector<block> blocks_;
  std::size_t used_ = 0, peak_ = 0;
  bool intact_ = true;
};

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
