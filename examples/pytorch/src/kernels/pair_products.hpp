// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/packing.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/scalar.hpp>

#include "panel_products.hpp"

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>

namespace hmoe::python {

/// Products (panel_products.hpp) of matrices of bfloat16 by vdpbf16ps, two steps of k at a time: packed values are
/// pairs of those of k (lower half) and k + 1.
struct pair_products {
  using value = bfloat16;
  using packed = std::uint32_t;
  static constexpr std::size_t panel_columns = 32;
  static constexpr std::size_t block_rows = 12, row_slots = 16; ///< sums of 12 × 32 in registers
  static constexpr std::size_t depth_together = 512;            ///< of k; a panel of it has 32 KB

  /// Pairs of `depth` values; the last one may have a zero as its second.
  [[nodiscard]] static constexpr std::size_t length_of(std::size_t depth) noexcept {
    return blocks_of(depth, std::size_t{2});
  }
  /// Rows of the first operand have that many values: an even number, zeros behind the end.
  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return backends::formats::detail::padded_row<bfloat16>(depth + depth % 2);
  }

  /// row = `depth` floats rounded, and zeros up to an even number.
  static void round_row(const float* from, std::size_t depth, bfloat16* row) noexcept {
    backends::formats::detail::round_values(from, depth, row);
    if (depth % 2 != 0)
      row[depth] = bfloat16();
  }

  static void store(const float* from, std::size_t count, bfloat16* to) noexcept {
    backends::formats::detail::round_values(from, count, to);
  }

  /// A panel of columns that are rows of a matrix, values [0, depth) of `columns` of them; further columns are those of
  /// the last one.
  static void pack_rows(const bfloat16* from, std::size_t stride, std::size_t columns, std::size_t depth,
                        packed* to) noexcept {
    const bfloat16* rows[panel_columns];
    const float* as_pairs[panel_columns]; // floats are moved only
    for (std::size_t c = 0; c < panel_columns; ++c) {
      rows[c] = from + std::min(c, columns - 1) * stride;
      as_pairs[c] = reinterpret_cast<const float*>(rows[c]);
    }
    constexpr std::size_t square = backends::simd_detail::square_vector<float>::size;
    const std::size_t whole = depth / (2 * square) * square; // pairs that are read in registers, at any address
    backends::simd_detail::interleave_rows<panel_columns, float>(as_pairs, whole, reinterpret_cast<float*>(to));
    for (std::size_t k = 2 * whole; k < depth; k += 2)
      for (std::size_t c = 0; c < panel_columns; ++c)
        to[k / 2 * panel_columns + c] =
            rows[c][k].bits | (k + 1 < depth ? static_cast<packed>(rows[c][k + 1].bits) << 16U : 0U);
  }

  /// `columns` ≤ Width columns of a matrix as they are, values [0, depth) of k, its rows; zeros in further ones.
  template <std::size_t Width>
  static void pack_columns(const bfloat16* from, std::size_t stride, std::size_t columns, std::size_t depth,
                           packed* to) noexcept {
    static_assert(Width == 16 || Width == 32);
    __mmask16 some[Width / 16];
    for (std::size_t i = 0; i < Width; i += 16)
      some[i / 16] = static_cast<__mmask16>(columns >= i + 16 ? 0xffffU
                                            : columns <= i    ? 0U
                                                              : (1U << (columns - i)) - 1);
    constexpr std::size_t ahead = 24; // rows: they are too far apart for the CPU to follow
    for (std::size_t k = 0; k < depth; k += 2, from += 2 * stride, to += Width) {
      __builtin_prefetch(from + ahead * stride);
      __builtin_prefetch(from + (ahead + 1) * stride);
#pragma GCC unroll 2
      for (std::size_t i = 0; i < Width; i += 16) {
        const auto load = [&](const bfloat16* row) {
          return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some[i / 16], row + i));
        };
        __m512i both = load(from);
        if (k + 1 < depth)
          both = _mm512_or_si512(both, _mm512_slli_epi32(load(from + stride), 16));
        _mm512_storeu_si512(to + i, both);
      }
    }
  }

  /// tile[r][c] = or, where a sum is resumed, += Σ_k a(r, k) · panel(k, c), r < Rows. `stride`: values between rows.
  template <std::size_t Rows, operand A>
  [[gnu::noinline]] static void multiply_block(std::size_t pairs, const bfloat16* a, std::size_t stride,
                                               const packed* panel, bool resume, float* tile) noexcept {
    using vec = xsimd::batch<float>;
    const std::size_t row_step = A == operand::packed ? 2 : stride;
    constexpr std::size_t step = A == operand::packed ? 32 : 2;
    vec sums[Rows][2];
#pragma GCC unroll 12
    for (std::size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (std::size_t c = 0; c < 2; ++c)
        sums[r][c] = resume ? vec::load_aligned(tile + r * panel_columns + c * 16) : vec(0.0F);
    backends::formats::detail::row_pointers<bfloat16, Rows> rows(a, row_step);
    for (std::size_t k = 0; k < pairs; ++k, rows.advance(step), panel += panel_columns)
      backends::formats::detail::add_pairs<Rows>(_mm512_load_si512(panel), _mm512_load_si512(panel + 16), rows, sums);
    backends::formats::detail::store(sums, tile);
  }
  template <operand A, std::size_t MostRows = block_rows>
  static void multiply_block(std::size_t rows, std::size_t pairs, const bfloat16* a, std::size_t stride,
                             const packed* panel, bool resume, float* tile) noexcept {
    if constexpr (MostRows > 1)
      if (rows < MostRows)
        return multiply_block<A, MostRows - 1>(rows, pairs, a, stride, panel, resume, tile);
    multiply_block<MostRows, A>(pairs, a, stride, panel, resume, tile);
  }
};

} // namespace hmoe::python
#endif
