// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/kernel.hpp>
#include <hmoe/backends/simd/packing.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/matrix_view.hpp>

#include "panel_products.hpp"

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::python {

/// Products (panel_products.hpp) of matrices of float.
struct float_products {
  using value = float;
  using packed = float;
  using vec = xsimd::batch<float>;
  static constexpr backends::simd_detail::tile_shape tile_shape = backends::simd_detail::tile_for<vec::arch_type>;
  static constexpr std::size_t panel_columns = tile_shape.vectors * vec::size, block_rows = tile_shape.rows;
  static constexpr std::size_t row_slots = block_rows;
  static constexpr std::size_t depth_together = tile_shape.depth;

  [[nodiscard]] static constexpr std::size_t length_of(std::size_t depth) noexcept { return depth; }
  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return backends::formats::detail::padded_row<float>(depth);
  }
  static void round_row(const float* from, std::size_t depth, float* row) noexcept { std::copy_n(from, depth, row); }
  static void store(const float* from, std::size_t count, float* to) noexcept { std::copy_n(from, count, to); }

  /// A panel of columns that are rows of a matrix, values [0, depth) of `columns` of them; further columns are those of
  /// the last one.
  static void pack_rows(const float* from, std::size_t stride, std::size_t columns, std::size_t depth,
                        float* to) noexcept {
    backends::simd_detail::interleave_rows<panel_columns, float>(matrix_view<const float>(from, columns, depth, stride),
                                                                 0, depth, to);
  }
  /// `columns` ≤ Width columns of a matrix as they are, values [0, depth) of k, its rows; zeros in further ones.
  template <std::size_t Width>
  static void pack_columns(const float* from, std::size_t stride, std::size_t columns, std::size_t depth,
                           float* to) noexcept {
    using wide = std::conditional_t<Width % vec::size == 0, vec, backends::simd_detail::square_vector<float>>;
    constexpr std::size_t ahead = 24; // rows: they are too far apart for the CPU to follow
    for (std::size_t k = 0; k < depth; ++k, from += stride, to += Width) {
      for (std::size_t i = 0; i < Width; i += 64 / sizeof(float))
        __builtin_prefetch(from + ahead * stride + i);
      if (columns == Width)
        backends::simd_detail::copy_values<Width, wide>(from, to);
      else
        std::fill_n(std::copy_n(from, columns, to), Width - columns, 0.0F);
    }
  }

  /// tile[r][c] = or, where a sum is resumed, += Σ_k a(r, k) · panel(k, c), r < Rows. `stride`: values between rows.
  template <std::size_t Rows, operand A>
  [[gnu::noinline]] static void multiply_block(std::size_t depth, const float* a, std::size_t stride,
                                               const float* panel, bool resume, float* tile) noexcept {
    constexpr std::size_t step = A == operand::packed ? row_slots : 1;
    vec sums[Rows][2];
#pragma GCC unroll 12
    for (std::size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (std::size_t c = 0; c < 2; ++c)
        sums[r][c] = resume ? vec::load_aligned(tile + r * panel_columns + c * vec::size) : vec(0.0F);
    backends::formats::detail::row_pointers<float, Rows> rows(a, A == operand::packed ? 1 : stride);
    for (std::size_t k = 0; k < depth; ++k, rows.advance(step), panel += panel_columns)
      backends::formats::detail::add_products<Rows>(vec::load_aligned(panel), vec::load_aligned(panel + vec::size),
                                                    rows, 0, sums);
    backends::formats::detail::store(sums, tile);
  }
  template <operand A, std::size_t MostRows = block_rows>
  static void multiply_block(std::size_t rows, std::size_t depth, const float* a, std::size_t stride,
                             const float* panel, bool resume, float* tile) noexcept {
    if constexpr (MostRows > 1)
      if (rows < MostRows)
        return multiply_block<A, MostRows - 1>(rows, depth, a, stride, panel, resume, tile);
    multiply_block<MostRows, A>(depth, a, stride, panel, resume, tile);
  }
};

} // namespace hmoe::python
