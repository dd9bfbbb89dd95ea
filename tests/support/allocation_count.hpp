// SPDX-License-Identifier: MIT
#pragma once

// Replaces the heap of the test program by one that counts. Functions that replace operator new cannot be inline, so
// exactly one source file of a program may include this; the others include allocations.hpp.

#include "support/allocations.hpp"

#include <cstdlib>
#include <new>

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
