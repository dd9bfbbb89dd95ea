// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

/// Operands of a product in the order in which a kernel reads them: for each k, Width values side by side.
namespace hmoe::backends::simd_detail {

/// Registers of 16 bytes, in which small squares are turned over: there interleaving two registers is one instruction
/// on every instruction set, where wider ones need several.
template <class T> using square_vector = xsimd::make_sized_batch_t<T, 16 / sizeof(T)>;

/// Registers that transpose 64 bytes of each of Width rows at a time. One of AVX-512 holds all 64: it is loaded from
/// quarters of four rows, shuffled twice, and stores 16 values side by side.
#if defined(__AVX512F__)
template <std::size_t Width, class T>
using line_square =
    std::conditional_t<std::is_same_v<T, float> && Width % 16 == 0, xsimd::batch<T, xsimd::avx512f>, square_vector<T>>;
#else
template <std::size_t Width, class T> using line_square = square_vector<T>;
#endif

/// Turns V::size rows, beginning at `rows`, over at k: to[j · width + i] = rows[i][k + j].
template <class V, class T>
[[gnu::always_inline]] inline void interleave_square(const T* const* rows, std::size_t k, T* to,
                                                     std::size_t width) noexcept {
  if constexpr (sizeof(V) == 64) {
#if defined(__AVX512F__)
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 16; j += 4, to += 4 * width) {
      __m512 quarters[4]; // of k + j: rows i, i + 4, i + 8, i + 12
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        const auto part = [&](std::size_t row) { return _mm_loadu_ps(rows[row] + k + j); };
        __m512 all = _mm512_castps128_ps512(part(i));
        all = _mm512_mask_broadcast_f32x4(all, 0x00f0, part(i + 4));
        all = _mm512_mask_broadcast_f32x4(all, 0x0f00, part(i + 8));
        quarters[i] = _mm512_mask_broadcast_f32x4(all, 0xf000, part(i + 12));
      }
      const __m512d ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(quarters[0], quarters[1]));
      const __m512d ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(quarters[0], quarters[1]));
      const __m512d cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(quarters[2], quarters[3]));
      const __m512d cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(quarters[2], quarters[3]));
      _mm512_storeu_pd(to, _mm512_unpacklo_pd(ab_low, cd_low));
      _mm512_storeu_pd(to + width, _mm512_unpackhi_pd(ab_low, cd_low));
      _mm512_storeu_pd(to + 2 * width, _mm512_unpacklo_pd(ab_high, cd_high));
      _mm512_storeu_pd(to + 3 * width, _mm512_unpackhi_pd(ab_high, cd_high));
    }
#endif
  } else if constexpr (V::size == 4) {
    const V a = V::load_unaligned(rows[0] + k), b = V::load_unaligned(rows[1] + k);
    const V c = V::load_unaligned(rows[2] + k), d = V::load_unaligned(rows[3] + k);
    const V ac_low = xsimd::zip_lo(a, c), ac_high = xsimd::zip_hi(a, c);
    const V bd_low = xsimd::zip_lo(b, d), bd_high = xsimd::zip_hi(b, d);
    xsimd::zip_lo(ac_low, bd_low).store_unaligned(to);
    xsimd::zip_hi(ac_low, bd_low).store_unaligned(to + width);
    xsimd::zip_lo(ac_high, bd_high).store_unaligned(to + 2 * width);
    xsimd::zip_hi(ac_high, bd_high).store_unaligned(to + 3 * width);
  } else {
    static_assert(V::size == 2);
    const V a = V::load_unaligned(rows[0] + k), b = V::load_unaligned(rows[1] + k);
    xsimd::zip_lo(a, b).store_unaligned(to);
    xsimd::zip_hi(a, b).store_unaligned(to + width);
  }
}

/// to[k][i] = from[i][k], i < Width, k < depth: rows side by side. LineSquare is part of the name, since a program may
/// have this function for several instruction sets.
template <std::size_t Width, class T, class LineSquare = line_square<Width, T>>
void interleave_rows(const T* const* from, std::size_t depth, T* to) noexcept {
  using vec = square_vector<T>;
  static_assert(Width % vec::size == 0);
  // An array of its own: a store through `to` could change the caller's pointers, so each would be read again after it.
  const T* rows[Width];
  std::copy_n(from, Width, rows);
  // A cache line of each row is used up before the next rows: with a stride that is a power of two all of them would
  // want the same few places in L1. Not more than 16 rows at a time, since the hardware does not follow many, and with
  // lines asked for in advance: a layer of 1 to 64 tokens takes .78 to .87 of the time with AVX-512 and .91 with AVX2,
  // but 1.05 times as long for the narrow panels of SSE (Zen 4). 4 to 24 lines ahead are much the same. What lies
  // behind the last row is only asked for, never read.
  constexpr std::size_t line = memory_alignment / sizeof(T), ahead = 8 * line;
  constexpr std::size_t together = Width % 16 == 0 ? 16 : Width;
  const std::size_t whole = depth / line * line;
  for (std::size_t first = 0; first < Width; first += together)
    for (std::size_t k = 0; k < whole; k += line) {
      if constexpr (Width * sizeof(T) >= 64)
#pragma GCC unroll 1
        for (std::size_t i = first; i < first + together; ++i)
          __builtin_prefetch(rows[i] + k + ahead);
      for (std::size_t i = first; i < first + together; i += LineSquare::size)
#pragma GCC unroll 8
        for (std::size_t j = 0; j < line; j += LineSquare::size)
          interleave_square<LineSquare>(rows + i, k + j, to + (k + j) * Width + i, Width);
    }
  std::size_t k = whole;
  for (; k + vec::size <= depth; k += vec::size)
    for (std::size_t i = 0; i < Width; i += vec::size)
      interleave_square<vec>(rows + i, k, to + k * Width + i, Width);
  for (; k < depth; ++k)
    for (std::size_t i = 0; i < Width; ++i)
      to[k * Width + i] = rows[i][k];
}
/// to[k][i] = from(i, first_k + k), i < Width, k < depth. A transposed matrix becomes the panel of columns that it has
/// as rows; rows of A become a block. Beyond the last row the last one is repeated.
template <std::size_t Width, class T>
void interleave_rows(matrix_view<const T> from, std::size_t first_k, std::size_t depth, T* to) noexcept {
  const T* rows[Width];
  for (std::size_t i = 0; i < Width; ++i)
    rows[i] = from.data() + std::min(i, from.rows() - 1) * from.stride() + first_k;
  interleave_rows<Width, T>(rows, depth, to);
}

/// Copies Width values in registers of type V; where they do not fill the last one, it overlaps the one before.
template <std::size_t Width, class V, class T>
[[gnu::always_inline]] inline void copy_values(const T* from, T* to) noexcept {
  static_assert(Width >= V::size);
#pragma GCC unroll 8
  for (std::size_t i = 0; i + V::size <= Width; i += V::size)
    V::load_unaligned(from + i).store_unaligned(to + i);
  if constexpr (Width % V::size != 0)
    V::load_unaligned(from + Width - V::size).store_unaligned(to + Width - V::size);
}

/// Panels of Width columns as they are, `step` values apart: to[p · step + k · Width + i] = from(first_k + k, p · Width
/// + i), k < depth. Values beyond the last column are 0. V: the registers to copy with.
template <std::size_t Width, class V, class T>
void copy_columns(matrix_view<const T> from, std::size_t first_k, std::size_t depth, T* to, std::size_t step) noexcept {
  const T* row = from.data() + first_k * from.stride();
  const std::size_t whole = from.cols() / Width, rest = from.cols() % Width;
  for (std::size_t k = 0; k < depth; ++k, row += from.stride(), to += Width) {
    for (std::size_t p = 0; p < whole; ++p)
      copy_values<Width, V>(row + p * Width, to + p * step);
    if (rest != 0)
      std::fill_n(std::copy_n(row + whole * Width, rest, to + whole * step), Width - rest, T(0));
  }
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
