// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

/// Whether views, matrices and buffers check their indices and sizes, on the host and on a device: 1 in programs
/// without NDEBUG, as assert() does; -DHMOE_ASSERTIONS=0 or =1 decides otherwise. The same in all files of a program.
#if !defined(HMOE_ASSERTIONS)
#if defined(NDEBUG)
#define HMOE_ASSERTIONS 0
#else
#define HMOE_ASSERTIONS 1
#endif
#endif

#if HMOE_ASSERTIONS
#define HMOE_ASSERT_INDEX(what, index, size)                                                                           \
  ((index) < (size) ? void() : ::hmoe::detail::index_out_of_range(what, index, size))
#define HMOE_ASSERT_RANGE(what, first, count, size)                                                                    \
  ((first) <= (size) && (count) <= (size) - (first) ? void()                                                           \
                                                    : ::hmoe::detail::range_out_of_range(what, first, count, size))
#define HMOE_ASSERT_STRIDE(rows, cols, stride)                                                                         \
  ((rows) <= 1 || (stride) >= (cols) ? void() : ::hmoe::detail::rows_overlap_one_another(rows, cols, stride))
#define HMOE_ASSERT_MEMORY(data, rows, cols)                                                                           \
  ((data) != nullptr || (cols) == 0 ? void() : ::hmoe::detail::no_memory(rows, cols))
#else
#define HMOE_ASSERT_INDEX(what, index, size) static_cast<void>(0)
#define HMOE_ASSERT_RANGE(what, first, count, size) static_cast<void>(0)
#define HMOE_ASSERT_STRIDE(rows, cols, stride) static_cast<void>(0)
#define HMOE_ASSERT_MEMORY(data, rows, cols) static_cast<void>(0)
#endif

namespace hmoe::detail {

/// Prints a sentence and ends the program, or the kernel.
template <class... Numbers>
[[noreturn]] HMOE_HOST_DEVICE inline void assertion_failed(const char* format, Numbers... numbers) noexcept {
#if defined(__CUDA_ARCH__)
  printf(format, numbers...);
  __trap();
  __builtin_unreachable();
#else
  std::fprintf(stderr, format, numbers...);
  std::abort();
#endif
}

[[noreturn]] HMOE_HOST_DEVICE inline void index_out_of_range(const char* what, std::size_t index,
                                                             std::size_t size) noexcept {
  assertion_failed("hmoe: %s %llu is out of range: there are %llu\n", what, static_cast<unsigned long long>(index),
                   static_cast<unsigned long long>(size));
}
[[noreturn]] HMOE_HOST_DEVICE inline void range_out_of_range(const char* what, std::size_t first, std::size_t count,
                                                             std::size_t size) noexcept {
  assertion_failed("hmoe: %s %llu to %llu + %llu are out of range: there are %llu\n", what,
                   static_cast<unsigned long long>(first), static_cast<unsigned long long>(first),
                   static_cast<unsigned long long>(count), static_cast<unsigned long long>(size));
}
[[noreturn]] HMOE_HOST_DEVICE inline void rows_overlap_one_another(std::size_t rows, std::size_t cols,
                                                                   std::size_t stride) noexcept {
  assertion_failed("hmoe: a view of %llu x %llu values to write through has rows %llu apart: they overlap\n",
                   static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols),
                   static_cast<unsigned long long>(stride));
}
[[noreturn]] HMOE_HOST_DEVICE inline void no_memory(std::size_t rows, std::size_t cols) noexcept {
  assertion_failed("hmoe: a view of %llu x %llu values is used that has a null pointer\n",
                   static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols));
}

} // namespace hmoe::detail

#include <hmoe/core/macros_on.hpp>
