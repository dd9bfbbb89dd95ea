// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/weight_formats.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <type_traits>

namespace hmoe::backends::simd_detail {

/// How panels are multiplied; printable, one place to tune.
struct tile_tuning {
  std::size_t rows;          ///< rows of activations in registers at a time: a block
  std::size_t ahead;         ///< a block alone on its panel prefetches that many bytes before they are needed ...
  std::size_t ahead_per_row; ///< ... and that many more for each of its rows
  std::size_t paired_rows;   ///< that many rows or fewer read two panels side by side, each with half of that distance
};

/// rows · 2 sums, two registers of weights and one activation have to fit the 32 registers of AVX-512 and of NEON on
/// 64-bit ARM, or the 16 of the others; 6 to 14 rows reach the same speed with AVX-512. GB/s from DRAM by the distance
/// of the prefetches, on a Zen 3 with AVX2:
///   | weights | distance        | 1 row | 4 rows | 6 rows | plain read |
///   | 32 bits | 4 KB            |    17 |     14 |     14 |         19 |
///   | 32 bits | 256 bytes a row |    19 |     19 |     18 |         19 |
///   | 16 bits | 256 bytes a row |    18 |     16 |        |            |
///   | 16 bits | 2 KB            |    21 |     20 |        |            |
/// Time of two panels side by side ÷ one after the other there: 0.8 for 1 and 2 rows, 0.85 for 4 (a plain read in two
/// places: 0.8); above 1 for quantised weights. On a Zen 4 with AVX-512 4 KB is best,
/// and 32 KB (into L2) for quantised weights: 1.3 times (8 bits) to 1.4 times (4 bits) as fast as 4 KB; no difference
/// on a Zen 3.
template <class Format, class Arch>
inline constexpr tile_tuning tuning_of = [] {
  constexpr std::size_t n = xsimd::batch<float, Arch>::size,
                        rows = n == 16 || std::is_base_of_v<xsimd::neon64, Arch> ? 12 : 6;
  constexpr std::size_t weights = n * 2 * 128, bytes = Format::template panel_bytes<Arch>(128);
  constexpr bool quantised = bytes < 2 * weights, narrow = bytes < 4 * weights;
  constexpr std::size_t paired_rows = n < 16 && !quantised ? 4 : 0;
  if constexpr (paired_rows > 0 && !narrow)
    return tile_tuning{rows, 0, 256, paired_rows};
  else
    return tile_tuning{rows, quantised ? 32768U : n == 16 ? 4096U : 2048U, 0, paired_rows};
}();

/// tile[p][r][c] = Σ_k row_r(k) · panel_p(k, c) for 1 to MaxRows rows; `step` row_values lie between rows, and 2·n
/// floats between rows of the tile, which is in L1. Prefetches what `ahead` says.
template <std::size_t MaxRows, std::size_t Panels, class Format, class Arch>
void multiply_panels(std::size_t rows, std::size_t depth, const typename Format::row_value* first, std::size_t step,
                     const std::byte* panel, formats::detail::read_ahead ahead, float* tile) noexcept {
  if constexpr (MaxRows > 1)
    if (rows < MaxRows)
      return multiply_panels<MaxRows - 1, Panels, Format, Arch>(rows, depth, first, step, panel, ahead, tile);
  Format::template multiply<MaxRows, Panels, Arch>(depth, first, step, panel, ahead, tile);
}

} // namespace hmoe::backends::simd_detail
