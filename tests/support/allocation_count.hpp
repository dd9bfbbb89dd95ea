// SPDX-License-Identifier: MIT
#pragma once

// Replaces the heap of the test program by one that counts. Functions that replace operator new cannot be inline, so
// exactly one source file of a program may include this.

// The thread sanitizer has replacements of its own, and refuses a second one.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SUPPORT_HEAP_IS_TAKEN
#endif
#endif

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

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

#ifndef SUPPORT_HEAP_IS_TAKEN
// Not inline, or GCC takes malloc in one caller and delete in another for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++support::allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size))
    return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  ++support::allocations;
  const auto unit = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(unit, (size / unit + 1) * unit))
    return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
#endif
