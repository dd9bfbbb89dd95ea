// SPDX-License-Identifier: MIT
// Products with many rows that have the bits of row_dots: weights are packed for all of them.
#pragma once

#include <hmoe/backends/simd/packing.hpp>
#include <hmoe/backends/simd/tile.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>

namespace hmoe::python {

/// ⟨row, weights⟩ as row_dots<float_rows> adds it up: lane l of a register has the sum over k = l, l + n, l + 2n, …,
/// and at the end the upper half of the lanes is added to the lower one until one is left. So a product is n products
/// of the n-th part of k each, which the kernel of packed float weights computes for a dozen rows and 2·n columns at a
/// time, and n − 1 additions. Rows and panels have the values of a lane behind one another.
class lane_panels {
  using vec = xsimd::batch<float>;
  using arch = vec::arch_type;
  using format = backends::formats::f32;
  static constexpr std::size_t lanes = vec::size, block = backends::simd_detail::tuning_of<format, arch>.rows;

public:
  static constexpr std::size_t columns_together = 2 * lanes; ///< of a panel
  static constexpr std::size_t rows_together = 20 * block;   ///< that a call multiplies best

  /// Floats of `count` rows, which lie together: what a lane has of all of them, before the next lane.
  [[nodiscard]] static std::size_t rows_size(std::size_t count, std::size_t depth) noexcept {
    return lanes * count * row_part(depth);
  }
  /// Values [first, first + some) of row r of `count` rows of `depth` values; zeros behind the last one.
  static void encode(const float* from, std::size_t first, std::size_t some, std::size_t depth, std::size_t count,
                     std::size_t r, float* rows) noexcept {
    for (std::size_t l = 0; l < lanes; ++l) {
      float* to = rows + (l * count + r) * row_part(depth);
      for (std::size_t k = round_up(first + lanes - l, lanes) - lanes + l; k < first + some; k += lanes)
        to[k / lanes] = from[k - first];
      if (first + some == depth && depth % lanes != 0 && l >= depth % lanes)
        to[depth / lanes] = 0;
    }
  }

  /// Floats of the panels of some columns.
  [[nodiscard]] static std::size_t panels_size(std::size_t columns, std::size_t depth) noexcept {
    return blocks_of(columns, columns_together) * panel_size(depth);
  }
  /// Packs `columns` rows of a weight matrix, `stride` values apart.
  static void pack(const float* weights, std::size_t stride, std::size_t columns, std::size_t depth,
                   float* panels) noexcept {
    for (std::size_t c = 0; c < columns; c += columns_together, panels += panel_size(depth))
      pack_panel(weights + c * stride, stride, std::min(columns_together, columns - c), depth, panels);
  }

  /// Floats that multiply needs for sums of some lanes.
  [[nodiscard]] static std::size_t partial_size(std::size_t rows, std::size_t columns) noexcept {
    return tree_height * rows * columns;
  }
  /// sums(r, c) = ⟨row first + r of `count` rows, column c of the panels⟩; the columns of sums fill the panels. Lane
  /// after lane, in the order in which they are added up: a lane of a panel is in L1, that of the rows in L2.
  static void multiply(const float* rows, std::size_t count, std::size_t first, const float* panels, std::size_t depth,
                       float* partial, matrix_view<float> sums) noexcept {
    const std::size_t each = steps(depth), step = row_part(depth), blocks = blocks_of(sums.rows(), block);
    const auto waiting = [&](std::size_t place, std::size_t c, std::size_t row) {
      return partial + (place * sums.cols() + c) * sums.rows() + row * columns_together;
    };
    for (std::size_t i = 0; i < lanes; ++i)
      for (std::size_t c = 0; c < sums.cols(); c += columns_together)
        for (std::size_t b = 0; b < blocks; ++b) {
          const block_range own = even_part(b, blocks, sums.rows());
          const float* from = rows + (lane_at(i) * count + first + own.first) * step;
          const float* weights = panels + panels_size(c, depth) + lane_at(i) * lane_size(depth);
          std::size_t place = static_cast<std::size_t>(std::popcount(i)); // as many sums wait for others
          alignas(64) float tile[block * columns_together];
          float* more = i % 2 == 0 ? waiting(place, c, own.first) : tile;
          backends::simd_detail::multiply_panels<block, 1, format, arch>(
              own.count, each, from, step, reinterpret_cast<const std::byte*>(weights),
              {reinterpret_cast<const std::byte*>(from + own.count * step), 2 * own.count}, more);
          for (std::size_t pairs = i; pairs % 2 != 0; pairs /= 2) {
            float* to = waiting(--place, c, own.first);
            for (std::size_t v = 0; v < own.count * columns_together; v += lanes)
              (vec::load_aligned(to + v) + vec::load_aligned(more + v)).store_aligned(to + v);
            more = to;
          }
        }
    for (std::size_t r = 0; r < sums.rows(); ++r)
      for (std::size_t c = 0; c < sums.cols(); c += columns_together)
        std::copy_n(waiting(0, c, r), columns_together, sums.row(r).data() + c);
  }

private:
  static constexpr std::size_t tree_height = std::countr_zero(lanes);

  /// Of k in a lane, and how far the rows of a lane are apart.
  static std::size_t steps(std::size_t depth) noexcept { return blocks_of(depth, lanes); }
  static std::size_t row_part(std::size_t depth) noexcept {
    return backends::formats::detail::padded_row<float>(steps(depth));
  }
  /// Between lanes lies a step more than they have: stores a multiple of 4 KB apart would want the same few places in
  /// L1.
  static std::size_t lane_size(std::size_t depth) noexcept { return (steps(depth) + 1) * columns_together; }
  static std::size_t panel_size(std::size_t depth) noexcept { return lanes * lane_size(depth); }
  /// Lanes in the order in which the tree takes them, so that what is to be added next has been computed last.
  static constexpr std::size_t lane_at(std::size_t i) noexcept {
    std::size_t lane = 0;
    for (std::size_t bit = 1; bit < lanes; bit *= 2, i /= 2)
      lane = 2 * lane + i % 2;
    return lane;
  }

  static void pack_panel(const float* weights, std::size_t stride, std::size_t columns, std::size_t depth,
                         float* panel) noexcept {
    using square = backends::simd_detail::line_square<columns_together, float>;
    constexpr std::size_t together = std::min<std::size_t>(16, columns_together); // the hardware does not follow more
    constexpr std::size_t ahead = 128; // values asked for in advance, as in interleave_rows
    const std::size_t apart = lane_size(depth), whole = depth / lanes;
    alignas(64) float last[columns_together][lanes]{};
    const float* rows[columns_together];
    for (std::size_t c = 0; c < columns_together; ++c) {
      rows[c] = weights + std::min(c, columns - 1) * stride;
      std::copy_n(rows[c] + whole * lanes, depth - whole * lanes, last[c]);
    }
    const auto turn_over = [&](const float* const* from, std::size_t first, std::size_t k, std::size_t step) {
      for (std::size_t c = first; c < first + together; c += square::size)
        for (std::size_t l = 0; l < lanes; l += square::size)
          backends::simd_detail::interleave_square<square>(from + c, k + l,
                                                           panel + l * apart + step * columns_together + c, apart);
    };
    for (std::size_t first = 0; first < columns_together; first += together)
      for (std::size_t step = 0; step < whole; ++step) {
        for (std::size_t c = first; c < first + together; ++c)
          __builtin_prefetch(rows[c] + step * lanes + ahead);
        turn_over(rows, first, step * lanes, step);
      }
    if (whole * lanes < depth) {
      for (std::size_t c = 0; c < columns_together; ++c)
        rows[c] = last[c];
      for (std::size_t first = 0; first < columns_together; first += together)
        turn_over(rows, first, 0, whole);
    }
  }
};

} // namespace hmoe::python
