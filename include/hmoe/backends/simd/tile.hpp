// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/weight_formats.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <type_traits>

namespace hmoe::backends::simd_detail {

/// Rows of activations in registers at a time: rows · 2 sums, two registers of weights and one activation have to fit
/// the 32 registers of AVX-512 and of NEON on 64-bit ARM, or the 16 of the others. 6 to 14 rows reach the same speed
/// with AVX-512.
template <class Arch>
inline constexpr std::size_t rows_per_block =
    xsimd::batch<float, Arch>::size == 16 || std::is_base_of_v<xsimd::neon64, Arch> ? 12 : 6;

/// tile[r][c] = Σ_k row_r(k) · panel(k, c) for 1 to MaxRows rows; `step` row_values lie between rows, and 2·n floats
/// between rows of the tile, which is in L1.
template <std::size_t MaxRows, class Format, class Arch>
void multiply_panel(std::size_t rows, std::size_t depth, const typename Format::row_value* first, std::size_t step,
                    const std::byte* panel, float* tile) noexcept {
  if constexpr (MaxRows > 1)
    if (rows < MaxRows)
      return multiply_panel<MaxRows - 1, Format, Arch>(rows, depth, first, step, panel, tile);
  Format::template multiply<MaxRows, Arch>(depth, first, step, panel, tile);
}

} // namespace hmoe::backends::simd_detail
