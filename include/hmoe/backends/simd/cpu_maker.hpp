// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

namespace hmoe::backends::simd_detail {

/// Whether an Intel CPU runs this. With the same instructions, it wants other kernels and prefetches than AMD's: see
/// quickest_bf16 and tile_tuning. The answer never changes, so the same weights have the same bits in every run.
[[nodiscard]] inline bool on_intel() noexcept {
#if defined(__x86_64__)
  static const bool intel = [] {
    __builtin_cpu_init();
    return __builtin_cpu_is("intel") != 0;
  }();
  return intel;
#else
  return false;
#endif
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
