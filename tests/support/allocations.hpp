// SPDX-License-Identifier: MIT
#pragma once

// The count of heap allocations. It moves where some source file of the program includes allocation_count.hpp.

// The thread sanitizer has replacements of its own, and refuses a second one.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SUPPORT_HEAP_IS_TAKEN
#endif
#endif

#include <atomic>
#include <cstddef>

namespace support {

/// Whether allocations are counted at all; otherwise the count stays 0.
#ifdef SUPPORT_HEAP_IS_TAKEN
inline constexpr bool counts_allocations = false;
#else
inline constexpr bool counts_allocations = true;
#endif

inline std::atomic<std::size_t> allocations = 0;

/// Heap allocations of the whole program while f() runs.
template <class F> [[nodiscard]] std::size_t allocations_in(F&& f) {
  const std::size_t before = allocations;
  f();
  return allocations - before;
}

} // namespace support
