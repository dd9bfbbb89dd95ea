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
  /// Values [first, first + some) of row r of `count` rows of `depth` values; zeros behind the last one. `first` is a
  /// multiple of columns_together.
  static void encode(const float* from, std::size_t first, std::size_t some, std::size_t depth, std::size_t count,
                     std::size_t r, float* rows) noexcept {
    const std::size_t apart = count * row_part(depth), whole = some / lanes;
    float* to = rows + r * row_part(depth) + first / lanes;
    std::size_t step =
        turn_steps<backends::simd_detail::line_square<columns_together, float>>(from, 0, whole, to, apart);
    step = turn_steps<backends::simd_detail::square_vector<float>>(from, step, whole, to, apart);
    for (; step < blocks_of(some, lanes); ++step)
      for (std::size_t l = 0; l < lanes; ++l)
        to[l * apart + step] = step * lanes + l < some ? from[step * lanes + l] : 0;
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
  /// sums(r, c) = ⟨row first + r of `count` rows, column c of the panels⟩; the columns of sums fill the panels. Some
  /// lanes after others, in the order in which they are added up: those of a panel are in L1, those of the rows in L2.
  static void multiply(const float* rows, std::size_t count, std::size_t first, const float* panels, std::size_t depth,
                       float* partial, matrix_view<float> sums) noexcept {
    const std::size_t each = steps(depth), step = row_part(depth), blocks = blocks_of(sums.rows(), block);
    const std::size_t together = lanes_together(depth);
    alignas(64) float tiles[tree_height][block * columns_together];
    for (std::size_t begin = 0; begin < lanes; begin += together)
      for (std::size_t c = 0; c < sums.cols(); c += columns_together)
        for (std::size_t b = 0; b < blocks; ++b) {
          const block_range own = even_part(b, blocks, sums.rows());
          const auto kept = static_cast<std::size_t>(std::popcount(begin)); // sums of lanes before these
          const auto waiting = [&](std::size_t place) {
            return place > kept ? tiles[place - 1]
                                : partial + ((place * sums.cols() + c) * sums.rows() + own.first * columns_together);
          };
          for (std::size_t i = begin; i < begin + together; ++i) {
            const auto row = [&](std::size_t lane) {
              return rows + (lane_at(lane) * count + first + own.first) * step;
            };
            const float* from = row(i);
            const float* next = i + 1 < begin + together ? row(i + 1) : row(begin) + own.count * step;
            const float* added[tree_height];
            auto place = static_cast<std::size_t>(std::popcount(i)); // as many sums wait for others
            std::size_t adds = 0;
            for (std::size_t pairs = i; pairs % 2 != 0; pairs /= 2)
              added[adds++] = waiting(--place);
            const bool last = i + 1 == lanes;
            multiply_block<block>(
                own.count, each, from, step, panels + panels_size(c, depth) + lane_at(i) * lane_size(depth),
                {reinterpret_cast<const std::byte*>(next), 2 * own.count}, added, adds,
                last ? sums.row(own.first).data() + c : waiting(place), last ? sums.stride() : columns_together);
          }
        }
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

  /// Lanes that are multiplied one after another for a block, whose sums are then added in L1: as many as have a panel
  /// of 24 KB, half of L1.
  static std::size_t lanes_together(std::size_t depth) noexcept {
    std::size_t some = lanes;
    while (some > 1 && some * lane_size(depth) * sizeof(float) > (std::size_t{24} << 10U))
      some /= 2;
    return some;
  }
  /// to(r, c) = Σ_k row_r(k) · panel(k, c), and `added` one after another, which are sums of other lanes: these are
  /// added while the sums are in registers.
  template <std::size_t Rows>
  static void multiply_block(std::size_t rows, std::size_t depth, const float* first, std::size_t step,
                             const float* panel, backends::formats::detail::read_ahead ahead, const float* const* added,
                             std::size_t adds, float* to, std::size_t to_step) noexcept {
    namespace detail = backends::formats::detail;
    if constexpr (Rows > 1)
      if (rows < Rows)
        return multiply_block<Rows - 1>(rows, depth, first, step, panel, ahead, added, adds, to, to_step);
    vec sums[Rows][2];
    detail::clear(sums);
    detail::row_pointers<float, Rows> values(first, step);
    const bool into_l2 = detail::asks_for_l2<arch>();
    for (std::size_t k = 0; k < depth; ++k, panel += columns_together, values.advance(1)) {
      ahead.template advance<columns_together * sizeof(float), 1>(0, into_l2);
      detail::add_products<Rows>(vec::load_aligned(panel), vec::load_aligned(panel + lanes), values, 0, sums);
    }
    for (std::size_t i = 0; i < adds; ++i)
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 2
        for (std::size_t half = 0; half < 2; ++half)
          sums[r][half] += vec::load_aligned(added[i] + r * columns_together + half * lanes);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r, to += to_step) {
      sums[r][0].store_aligned(to);
      sums[r][1].store_aligned(to + lanes);
    }
  }

  /// Steps from `step` on, Square::size at a time: value l of each goes to lane l. Returns the first one that is left.
  template <class Square>
  static std::size_t turn_steps(const float* from, std::size_t step, std::size_t whole, float* to,
                                std::size_t apart) noexcept {
    for (; step + Square::size <= whole; step += Square::size) {
      const float* several[Square::size];
      for (std::size_t i = 0; i < Square::size; ++i)
        several[i] = from + (step + i) * lanes;
      for (std::size_t l = 0; l < lanes; l += Square::size)
        backends::simd_detail::interleave_square<Square>(several, l, to + l * apart + step, apart);
    }
    return step;
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
