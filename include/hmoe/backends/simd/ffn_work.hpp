// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/packed_product.hpp>
#include <hmoe/backends/simd/pieces.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/execution/probe.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// The kinds of work that the passes of feed-forward experts consist of, in units that a worker can take alone: what a
/// unit costs, and which rows, columns or blocks the units of a piece are.
template <class T, class Arch> struct ffn_work {
  using rows_form = packed_rows<T, Arch>;
  using columns_form = packed_columns<T, Arch>;
  static constexpr std::size_t panel = panel_width<T, Arch>, gradient_rows = cache_blocks<T, Arch>::rows;

  /// Packing rows; units are some blocks.
  static divisible_work rows_to_pack(std::size_t rows, std::size_t depth) noexcept {
    return {blocks_of(row_blocks<Arch>(rows), blocks_together),
            copy_cost * static_cast<double>(rows_form::size(tile_for<Arch>.rows * blocks_together, depth))};
  }
  static void pack_rows(matrix_view<const T> from, const work_piece& w, T* to) noexcept {
    const block_range r = w.of(blocks_together, row_blocks<Arch>(from.rows()));
    rows_form::pack(from, r.first, r.count, to);
  }
  static void pack_sources(const expert_rows<T>& all, std::size_t depth, const work_piece& w, T* to) noexcept {
    const block_range r = w.of(blocks_together, row_blocks<Arch>(all.count));
    rows_form::pack_sources(all, depth, r.first, r.count, to);
  }
  /// The rows of the blocks of such a piece.
  static block_range rows_of(const work_piece& w, std::size_t rows) noexcept {
    const std::size_t blocks = row_blocks<Arch>(rows);
    const block_range r = w.of(blocks_together, blocks);
    const std::size_t first = r.first * rows / blocks;
    return {first, (r.first + r.count) * rows / blocks - first};
  }

  /// Packing columns; units are panels.
  static divisible_work columns_to_pack(std::size_t rows, std::size_t columns) noexcept {
    return {columns_form::panels(columns), copy_cost * static_cast<double>(rows * panel)};
  }
  static void pack_columns(matrix_view<const T> from, const work_piece& w, T* to) noexcept {
    columns_form::pack(from, w.first, w.count, to);
  }
  static void pack_source_columns(const expert_rows<T>& all, const work_piece& w, T* to) noexcept {
    columns_form::pack_sources(all, w.first, w.count, to);
  }

  /// C[rows × columns], sums of `depth`, from packed rows; units are the panels that are multiplied together. Packing
  /// the other operand takes as long as some rows.
  static divisible_work columns_to_compute(std::size_t rows, std::size_t depth, std::size_t columns) noexcept {
    const std::size_t unit = panels_together<T, Arch>(rows) * panel;
    return {blocks_of(columns, unit), static_cast<double>((rows + packing_rows) * depth * unit)};
  }
  static block_range columns_of(const work_piece& w, std::size_t rows, std::size_t columns) noexcept {
    return w.of(panels_together<T, Arch>(rows) * panel, columns);
  }

  /// Columns of several chunks, computed one chunk after the other, where results are added to tokens: units are as
  /// many panels as the chunk of most rows multiplies together.
  static divisible_work shared_columns(std::size_t most_rows, double all_rows_and_depths,
                                       std::size_t columns) noexcept {
    const std::size_t unit = panels_together<T, Arch>(most_rows) * panel;
    return {blocks_of(columns, unit), all_rows_and_depths * static_cast<double>(unit)};
  }
  static double rows_and_depth(std::size_t rows, std::size_t depth) noexcept {
    return static_cast<double>((rows + packing_rows) * depth);
  }

  /// A weight gradient [m × columns] from packed columns of `rows` rows; units are rows of the gradient. That it is
  /// read and written takes as long as some rows.
  static divisible_work gradient_to_add(std::size_t rows, std::size_t m, std::size_t columns) noexcept {
    return {blocks_of(m, gradient_rows), static_cast<double>((rows + packing_rows) * gradient_rows * columns)};
  }
  static block_range gradient_rows_of(const work_piece& w, std::size_t m) noexcept { return w.of(gradient_rows, m); }
  /// gradient = or, where the sum is resumed, += dᵀ · columns, bias_gradient likewise the sums of d's columns; the
  /// gradient of several matrices one above the other, as many rows each, which may lie anywhere. Those without memory
  /// are left out.
  template <std::size_t Parts>
  static void add_gradient(bool resume, matrix_view<const T> d, const T* columns, const work_piece& w,
                           const std::array<matrix_view<T>, Parts>& gradient,
                           const std::array<matrix_view<T>, Parts>& bias_gradient) noexcept {
    const block_range all = gradient_rows_of(w, d.cols());
    const std::size_t end = all.first + all.count, rows = gradient[0].rows();
    for (std::size_t part = 0; part < Parts; ++part) {
      const std::size_t before = part * rows; // rows of other parts
      const std::size_t first = std::max(all.first, before), last = std::min(end, before + rows);
      if (gradient[part].data() != nullptr)
        for (std::size_t m = first; m < last; m += gradient_rows) {
          const std::size_t count = std::min(gradient_rows, last - m);
          accumulate_packed_columns<Arch, T>(resume, d.column_block(m, count), columns,
                                             gradient[part].row_block(m - before, count));
        }
      if (bias_gradient[part].data() != nullptr)
        for (std::size_t r = 0; r < d.rows(); ++r)
          for (std::size_t m = first; m < last; ++m)
            bias_gradient[part](0, m - before) =
                (resume || r != 0 ? bias_gradient[part](0, m - before) : T(0)) + d(r, m);
    }
  }

  /// bias (which may be empty) is added to columns [first, first + columns.cols()) of each row.
  static void add_bias(matrix_view<const T> bias, std::size_t first, matrix_view<T> columns) noexcept {
    if (bias.rows() != 0)
      for (std::size_t r = 0; r < columns.rows(); ++r)
        for (std::size_t c = 0; c < columns.cols(); ++c)
          columns(r, c) += bias(0, first + c);
  }

  /// Events of pieces. Rows belong to the piece with the first columns; packing is part of the product that follows.
  template <class Chunk>
  static probes::event packing(probes::stage stage, probes::direction direction, const Chunk& c, std::size_t columns,
                               const work_piece& w) noexcept {
    const std::size_t rows = c.rows.count, block = tile_for<Arch>.rows * blocks_together;
    const std::size_t values =
        w.kind == 0 ? std::min(w.count * block, rows) * columns : rows * std::min(w.count * panel, columns);
    return {stage, direction, 0, static_cast<double>(2 * values * sizeof(T)), 0, c.rows.expert};
  }
  /// Packing the first operand of an expert: of rows that are gathered with it, or that lie together.
  template <class Chunk>
  static probes::event gathering(probes::stage stage, probes::direction direction, const Chunk& c, std::size_t columns,
                                 const work_piece& w) noexcept {
    probes::event result = packing(stage, direction, c, columns, w);
    if (stage == probes::stage::gather)
      result.rows = rows_of(w, c.rows.count).count;
    return result;
  }
  /// Products with `matrices` matrices, each [columns × depth].
  static probes::event product(probes::stage stage, probes::direction direction, std::size_t expert, std::size_t rows,
                               std::size_t depth, std::size_t matrices, block_range columns) noexcept {
    const auto n = static_cast<double>(rows), k = static_cast<double>(depth);
    const auto m = static_cast<double>(matrices * columns.count);
    return {stage,         direction, columns.first == 0 ? rows : 0, (n * k + k * m + n * m) * sizeof(T),
            2 * n * k * m, expert};
  }
  template <class Chunk>
  static probes::event product(probes::stage stage, probes::direction direction, const Chunk& c, std::size_t depth,
                               std::size_t matrices, block_range columns) noexcept {
    return product(stage, direction, c.rows.expert, c.rows.count, depth, matrices, columns);
  }
  static probes::event activation(probes::direction direction, std::size_t expert, std::size_t rows, std::size_t values,
                                  block_range columns) noexcept {
    return {probes::stage::activation,
            direction,
            columns.first == 0 ? rows : 0,
            static_cast<double>(rows * values * columns.count * sizeof(T)),
            0,
            expert};
  }
  /// Adding to rows of a gradient: read and written.
  static probes::event gradient(probes::stage stage, std::size_t expert, std::size_t rows, std::size_t columns,
                                block_range gradient_rows_of) noexcept {
    const auto n = static_cast<double>(rows), k = static_cast<double>(columns);
    const auto m = static_cast<double>(gradient_rows_of.count);
    return {stage, probes::direction::backward, 0, (n * k + n * m + 2 * m * k) * sizeof(T), 2 * n * k * m, expert};
  }

private:
  static constexpr std::size_t blocks_together = 4, packing_rows = 16;
  static constexpr double copy_cost = 16; // multiply-adds that take as long as copying a value
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
