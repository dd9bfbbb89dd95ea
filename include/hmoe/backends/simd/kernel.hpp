// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>

namespace hmoe::backends::simd_detail {

/// How a product is cut for the registers of an instruction set; printable, one place to tune.
struct tile_shape {
  std::size_t rows;    ///< rows of C in registers
  std::size_t vectors; ///< vectors of columns of C in registers
  std::size_t depth;   ///< steps of k before C returns to memory: one panel of B stays in L1
};

/// rows × vectors accumulators, `vectors` values of B and one of A have to fit the register file: 12·2 + 2 + 1 of the
/// 32 registers of AVX-512, 6·2 + 2 + 1 of the 16 that all others have at least. More rows mean fewer loads of B per
/// multiply-add.
template <class Arch>
inline constexpr tile_shape tile_for =
    xsimd::batch<float, Arch>::size == 16 ? tile_shape{12, 2, 256} : tile_shape{6, 2, 256};

/// Columns of C that a tile has.
template <class T, class Arch>
inline constexpr std::size_t panel_width = tile_for<Arch>.vectors * xsimd::batch<T, Arch>::size;

/// Where a kernel finds A(r, k): in a matrix with rows `step` apart, in the transpose of one, or in a packed block that
/// has Width values for each k. Always inlined: with -Os a tile would call them for each value.
template <class T> struct plain_operand {
  const T* values;
  std::size_t step;
  [[nodiscard, gnu::always_inline]] T operator()(std::size_t r, std::size_t k) const noexcept {
    return values[r * step + k];
  }
};
template <class T> struct transposed_operand {
  const T* values;
  std::size_t step;
  [[nodiscard, gnu::always_inline]] T operator()(std::size_t r, std::size_t k) const noexcept {
    return values[k * step + r];
  }
};
template <class T, std::size_t Width> struct packed_operand {
  const T* values;
  [[nodiscard, gnu::always_inline]] T operator()(std::size_t r, std::size_t k) const noexcept {
    return values[k * Width + r];
  }
};

/// C[Rows × V vectors] = or += Σ_k A(r, k) · B(k, ·), each element its own chain of multiply-adds over ascending k, so
/// its bits do not depend on Rows or on the columns beside it. B's row k starts at b + k·b_step. The sum starts from C
/// when it is resumed, else from zero. (One function for both: it is compiled for many numbers of rows.)
template <std::size_t Rows, std::size_t V, class T, class Arch, class A>
void multiply_tile(bool resume, std::size_t depth, A a, const T* b, std::size_t b_step, T* c,
                   std::size_t c_step) noexcept {
  using vec = xsimd::batch<T, Arch>;
  vec sums[Rows][V];
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v)
      sums[r][v] = vec(T(0));
  if (resume)
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v)
        sums[r][v] = vec::load_unaligned(c + r * c_step + v * vec::size);
  for (std::size_t k = 0; k < depth; ++k) {
    vec columns[V];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v)
      columns[v] = vec::load_unaligned(b + k * b_step + v * vec::size);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r) {
      const vec value(a(r, k));
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v)
        sums[r][v] = xsimd::fma(value, columns[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v)
      sums[r][v].store_unaligned(c + r * c_step + v * vec::size);
}

/// multiply_tile for a number of rows known at run time, 1 to MaxRows, and a first or a later part of the sum.
template <std::size_t MaxRows, std::size_t V, class T, class Arch, class A>
void multiply_rows(std::size_t rows, bool resume, std::size_t depth, A a, const T* b, std::size_t b_step, T* c,
                   std::size_t c_step) noexcept {
  if constexpr (MaxRows > 1)
    if (rows < MaxRows)
      return multiply_rows<MaxRows - 1, V, T, Arch>(rows, resume, depth, a, b, b_step, c, c_step);
  multiply_tile<MaxRows, V, T, Arch>(resume, depth, a, b, b_step, c, c_step);
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
