// SPDX-License-Identifier: MIT
// With -fassociative-math: tests/project/programs/associative_math.cpp.
#include <hmoe/backends/simd/rounding.hpp>

#include <doctest/doctest.h>
#include <xsimd/xsimd.hpp>

#include <array>

TEST_CASE_TEMPLATE("as_rounded returns what it is given", T, float, double) {
  using vec = xsimd::batch<T>;
  alignas(vec) std::array<T, vec::size> values{}, same{};
  for (std::size_t i = 0; i < vec::size; ++i)
    values[i] = static_cast<T>(i) - T(1.5);
  hmoe::backends::simd_detail::as_rounded(vec::load_aligned(values.data())).store_aligned(same.data());
  CHECK(values == same);
}
