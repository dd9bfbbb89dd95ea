// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hmoe::backends::cuda_detail {

/// Alignment of arrays in a workspace and of a tape: what cudaMalloc gives.
inline constexpr std::size_t device_alignment = 256;

/// hmoe::error where somebody else's memory does not begin at a multiple of `alignment`.
inline void require_aligned(const void* memory, std::size_t alignment, std::string_view name) {
  require(reinterpret_cast<std::uintptr_t>(memory) % alignment == 0, name, " must begin at a multiple of ", alignment,
          " bytes");
}

/// Lays out arrays one behind the other; the first run over it, without memory, counts the bytes.
class carver {
public:
  explicit carver(std::byte* block = nullptr) noexcept : block_(block) {}
  template <class T> T* take(std::size_t count) noexcept {
    const std::size_t begin = used_;
    used_ += (count * sizeof(T) + device_alignment - 1) / device_alignment * device_alignment;
    return block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + begin);
  }
  [[nodiscard]] std::size_t used() const noexcept { return used_; }

private:
  std::byte* block_;
  std::size_t used_ = 0;
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
