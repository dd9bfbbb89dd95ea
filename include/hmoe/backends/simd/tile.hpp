// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/cpu_maker.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <optional>
#include <type_traits>

namespace hmoe::backends::simd_detail {

/// How panels are multiplied; printable, one place to tune.
struct tile_tuning {
  std::size_t rows;           ///< rows of activations in registers at a time: a block
  std::size_t ahead;          ///< a block alone on its panel prefetches that many bytes before they are needed ...
  std::size_t ahead_per_row;  ///< ... and that many more for each of its rows
  std::size_t unasked_rows;   ///< that many rows or fewer in such a block leave prefetching to the CPU
  std::size_t ahead_on_intel; ///< what holds in place of these three on Intel's CPUs, for all rows; 0: the same
  std::size_t paired_rows;    ///< that many rows or fewer read two panels side by side, each with half of that distance

  /// How far ahead a block alone on its panel, of `count` rows, prefetches; nothing: it does not.
  [[nodiscard]] std::optional<std::size_t> distance(std::size_t count) const noexcept {
    if (ahead_on_intel > 0 && on_intel())
      return ahead_on_intel;
    if (count <= unasked_rows)
      return std::nullopt;
    return ahead + ahead_per_row * count;
  }
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
/// places: 0.8); above 1 for quantised weights, for which 4 KB and 32 KB are alike.
/// GB/s on a Zen 4 with AVX-512 and huge pages, a plain read 34; none: the CPU's own prefetching alone; 0: of a line
/// just before it is loaded:
///   | weights       |    rows | none |  0 | 512 B | 4 KB | 8 KB | 32 KB |
///   | 32 or 16 bits | 1, 2, 4 |   33 | 33 |    32 |   31 |   31 |    29 |
///   | 32 or 16 bits |       8 |   26 | 26 |    26 |   24 |   23 |    20 |
///   | 32 or 16 bits |      12 |   14 | 14 |    14 |   17 |   17 |    15 |
///   | q8            | 1, 2, 4 |   33 | 31 |    31 |   26 |   23 |    23 |
///   | q8            |       8 |   19 | 19 |    17 |   20 |   22 |    22 |
///   | q4            |    1, 2 |   33 | 32 |    32 |   22 |   24 |    23 |
///   | q4            |       4 |   22 | 22 |    22 |   22 |   24 |    24 |
///   | fp8           |       1 |   28 | 28 |    28 |   24 |   30 |    29 |
///   | fp8           |       4 |   20 | 20 |    20 |   21 |   25 |    25 |
/// and on an Intel Xeon of 2 cores (AVX-512, family 6, model 207; other programs running, a plain read of one core 16):
///   | weights    | rows | none |  0 | 512 B | 2 KB | 4 KB | 8 KB | 16 KB | 32 KB |
///   | 32 bits    |    1 |   16 | 15 |    15 |   17 |   17 |   17 |    17 |    15 |
///   | 32 bits    |    4 |   11 | 11 |    12 |   14 |   15 |   15 |    15 |    14 |
///   | 32 bits    |   12 |    8 |  8 |    10 |   12 |   13 |   13 |    13 |    13 |
///   | 16 bits    |    1 |   12 | 12 |    13 |   13 |   16 |   15 |    16 |    15 |
///   | 16 bits    |    4 |    9 |  9 |    11 |   13 |   14 |   14 |    14 |    13 |
///   | 16 bits    |   12 |    7 |  7 |     9 |   12 |   12 |   12 |    13 |    12 |
///   | q8_channel |    1 |   16 | 16 |    17 |   17 |   17 |   17 |    17 |    17 |
///   | q8_channel |    4 |   12 | 12 |    12 |   14 |   16 |   16 |    15 |    16 |
///   | q8_channel |   12 |    8 |  9 |     9 |   12 |   15 |   15 |    15 |    15 |
///   | q4         |    1 |   12 | 12 |    12 |   15 |   16 |   16 |    16 |    16 |
///   | q4         |    4 |   10 | 10 |    10 |   13 |   15 |   15 |    15 |    15 |
/// There floats and 16 bits are asked for into L2, not L1: a layer of 8 × 1536, d 768 takes .90 to .98 of the time at
/// 1, 4 and 16 tokens and .95 to .99 at 64 (16 rows of an expert), where blocks share the prefetch of the next panel.
/// On the Zen 4, in layers, 0 is as quick or quicker for up to 12 rows of 32 or 16 bits (by 3 % at 10 rows of float),
/// and mxfp4, whose decoding is longer, is slower without prefetches.
template <class Format, class Arch>
inline constexpr tile_tuning tuning_of = [] {
  constexpr std::size_t n = xsimd::batch<float, Arch>::size,
                        rows = n == 16 || std::is_base_of_v<xsimd::neon64, Arch> ? 12 : 6;
  constexpr std::size_t weights = n * 2 * 128, bytes = Format::template panel_bytes<Arch>(128);
  constexpr bool quantised = bytes < 2 * weights, narrow = bytes < 4 * weights;
  constexpr bool in_bytes = std::is_same_v<typename Format::row_value, std::byte>;
  constexpr std::size_t unasked_rows = n == 16 && in_bytes && Format::name != "mxfp4" ? 4 * bytes / weights : 0;
  constexpr std::size_t paired_rows = n < 16 && !quantised ? 4 : 0;
  constexpr std::size_t ahead_on_intel = n == 16 ? 8192 : 0; // with shorter registers it has not been measured
  constexpr std::size_t ahead = n == 16 ? (quantised ? 8192U : 0U) : (quantised ? 32768U : 2048U);
  constexpr bool by_row = paired_rows > 0 && !narrow;
  return tile_tuning{rows, by_row ? 0 : ahead, by_row ? 256U : 0U, unasked_rows, ahead_on_intel, paired_rows};
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

#include <hmoe/core/macros_on.hpp>
