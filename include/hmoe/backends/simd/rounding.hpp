// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

namespace hmoe::backends::simd_detail {

/// A vector as it has been rounded. -fassociative-math permits compilers to compute (x + c) − c as x, and no macro of
/// clang tells of the flag: what relies on a rounded sum or product takes it through here. No instruction.
template <class V> [[nodiscard, gnu::always_inline]] inline V as_rounded(V value) noexcept {
#if defined(__SSE2__)
  asm("" : "+v"(value.data));
#elif defined(__aarch64__)
  asm("" : "+w"(value.data));
#else
  asm("" : "+m"(value));
#endif
  return value;
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
