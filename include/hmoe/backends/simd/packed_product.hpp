// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/kernel.hpp>
#include <hmoe/backends/simd/packing.hpp>
#include <hmoe/backends/simd/products.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

/// Products whose larger operand is shared: what a batch's rows are multiplied with changes from task to task, the rows
/// are packed once for all tasks. The other operand is packed by the task that needs it, piece by piece into a buffer
/// on its stack, and used up at once. Each element is one chain of multiply-adds over ascending k, as in products.hpp
/// and with the same bits.
namespace hmoe::backends::simd_detail {

/// Rows of A in blocks of a tile's height, ready to be broadcast: block b begins at b · slots · depth and has `slots`
/// values for each k, the first of which are its rows.
template <class T, class Arch> struct packed_rows {
  static constexpr std::size_t slots =
      (tile_for<Arch>.rows + square_vector<T>::size - 1) / square_vector<T>::size * square_vector<T>::size;

  [[nodiscard]] static constexpr std::size_t size(std::size_t rows, std::size_t depth) noexcept {
    return row_blocks<Arch>(rows) * slots * depth;
  }
  /// Packs blocks [first, first + count) of `from`.
  static void pack(matrix_view<const T> from, std::size_t first, std::size_t count, T* to) noexcept {
    const std::size_t blocks = row_blocks<Arch>(from.rows());
    for (std::size_t b = first; b < first + count; ++b) {
      const std::size_t row = b * from.rows() / blocks, rows = (b + 1) * from.rows() / blocks - row;
      interleave_rows<slots, T>(from.row_block(row, rows), 0, from.cols(), to + b * slots * from.cols());
    }
  }
  /// Packs those of all.count rows of `depth` values that are anywhere, times their weights where these are on the
  /// input.
  static void pack_sources(const expert_rows<T>& all, std::size_t depth, std::size_t first, std::size_t count,
                           T* to) noexcept {
    const std::size_t blocks = row_blocks<Arch>(all.count);
    for (std::size_t b = first; b < first + count; ++b) {
      const std::size_t row = b * all.count / blocks, last = (b + 1) * all.count / blocks - 1;
      const T* rows[slots];
      for (std::size_t i = 0; i < slots; ++i)
        rows[i] = all.source(std::min(row + i, last)).data();
      T* block = to + b * slots * depth;
      interleave_rows<slots, T>(rows, depth, block);
      if (!all.weights_on_input)
        continue;
      T weights[slots];
      for (std::size_t i = 0; i < slots; ++i)
        weights[i] = all.input_weight(std::min(row + i, last));
      for (std::size_t k = 0; k < depth; ++k)
        for (std::size_t i = 0; i < slots; ++i)
          block[k * slots + i] *= weights[i];
    }
  }
};

/// Columns of B in panels: panel p begins at p · width · depth and has `width` values for each k.
template <class T, class Arch> struct packed_columns {
  static constexpr std::size_t width = panel_width<T, Arch>;

  [[nodiscard]] static constexpr std::size_t panels(std::size_t columns) noexcept {
    return (columns + width - 1) / width;
  }
  [[nodiscard]] static constexpr std::size_t size(std::size_t columns, std::size_t depth) noexcept {
    return panels(columns) * width * depth;
  }
  /// Packs panels [first, first + count) of `from`.
  static void pack(matrix_view<const T> from, std::size_t first, std::size_t count, T* to) noexcept {
    const std::size_t column = first * width, step = width * from.rows();
    copy_columns<width, xsimd::batch<T, Arch>, T>(
        from.column_block(column, std::min(count * width, from.cols() - column)), 0, from.rows(), to + first * step,
        step);
  }
  /// Packs those of all.count rows of x that are anywhere.
  static void pack_sources(const expert_rows<T>& all, std::size_t first, std::size_t count, T* to) noexcept {
    const std::size_t column = first * width, step = width * all.count;
    const std::size_t columns = std::min(count * width, all.x.cols() - column);
    for (std::size_t r = 0; r < all.count; ++r)
      copy_columns<width, xsimd::batch<T, Arch>, T>(matrix_view<const T>(all.source(r).data() + column, 1, columns), 0,
                                                    1, to + first * step + r * width, step);
  }
};

/// What is in the caches at a time: the task's own operand for `panels` panels and A for `rows` rows of C, both for one
/// depth of tile_shape and each about a quarter of an L2 cache of 512 KB or less; one panel is in L1.
template <class T, class Arch> struct cache_blocks {
  static constexpr tile_shape tile = tile_for<Arch>;
  static constexpr std::size_t bytes = 65536;
  static constexpr std::size_t panels =
      std::max<std::size_t>(1, bytes / (tile.depth * panel_width<T, Arch> * sizeof(T)));
  static constexpr std::size_t rows =
      std::max<std::size_t>(1, bytes / (tile.depth * tile.rows * sizeof(T))) * tile.rows;
};

/// Panels of the task's own operand that a product of so many rows takes together. Few rows are in the caches anyhow,
/// and then a panel is best used up while it is in L1.
template <class T, class Arch> [[nodiscard]] constexpr std::size_t panels_together(std::size_t rows) noexcept {
  return rows <= cache_blocks<T, Arch>::rows ? 1 : cache_blocks<T, Arch>::panels;
}

/// C = A·B, sums of `total`; A packed in rows. pack(j, columns, k, depth, to) packs rows [k, k + depth) of columns
/// [j, j + columns) of B in panels, tile.depth · panel values apart.
template <class Arch, class T, class Pack>
void multiply_packed_rows_by(const T* a, std::size_t total, const Pack& pack, matrix_view<T> c) noexcept {
  constexpr tile_shape tile = tile_for<Arch>;
  constexpr std::size_t panel = panel_width<T, Arch>, slots = packed_rows<T, Arch>::slots;
  constexpr std::size_t blocks_together = cache_blocks<T, Arch>::rows / tile.rows;
  alignas(memory_alignment) T packed[cache_blocks<T, Arch>::panels * tile.depth * panel];
  const std::size_t blocks = row_blocks<Arch>(c.rows());
  const std::size_t together = panels_together<T, Arch>(c.rows());
  if (total == 0) // an empty sum: an expert of width 0
    for (std::size_t r = 0; r < c.rows(); ++r)
      std::fill_n(c.row(r).data(), c.cols(), T(0));
  for (std::size_t j = 0; j < c.cols(); j += together * panel) {
    const std::size_t end = std::min(c.cols(), j + together * panel);
    for (std::size_t k = 0; k < total; k += tile.depth) {
      const std::size_t depth = std::min(tile.depth, total - k);
      pack(j, end - j, k, depth, packed);
      for (std::size_t group = 0; group < blocks; group += blocks_together) {
        const T* panel_of_b = packed;
        for (std::size_t p = j; p < end; p += panel, panel_of_b += tile.depth * panel)
          for (std::size_t block = group; block < std::min(blocks, group + blocks_together); ++block) {
            const std::size_t first = block * c.rows() / blocks, rows = (block + 1) * c.rows() / blocks - first;
            multiply_block<T, Arch>(rows, std::min(panel, end - p), k != 0, depth,
                                    packed_operand<T, slots>{a + (block * total + k) * slots}, panel_of_b, panel,
                                    c.data() + first * c.stride() + p, c.stride());
          }
      }
    }
  }
}

/// C = A·B; A packed in rows, B as it is or transposed.
template <layout LayoutB, class Arch, class T>
void multiply_packed_rows(const T* a, matrix_view<const T> b, matrix_view<T> c) noexcept {
  constexpr std::size_t panel = panel_width<T, Arch>, tile_depth = tile_for<Arch>.depth;
  multiply_packed_rows_by<Arch>(
      a, LayoutB == layout::plain ? b.rows() : b.cols(),
      [&](std::size_t j, std::size_t columns, std::size_t k, std::size_t depth, T* to) {
        if constexpr (LayoutB == layout::transposed)
          for (std::size_t p = 0; p < columns; p += panel)
            interleave_rows<panel, T>(b.row_block(j + p, std::min(panel, columns - p)), k, depth, to + p * tile_depth);
        else
          copy_columns<panel, xsimd::batch<T, Arch>, T>(b.column_block(j, columns), k, depth, to, tile_depth * panel);
      },
      c);
}
/// C = A·B for B of several matrices one above the other, as many rows each, which may lie anywhere; with the bits of
/// one matrix.
template <class Arch, class T, std::size_t Parts>
void multiply_packed_rows(const T* a, const std::array<matrix_view<const T>, Parts>& b, matrix_view<T> c) noexcept {
  constexpr std::size_t panel = panel_width<T, Arch>, step = tile_for<Arch>.depth * panel;
  const std::size_t rows = b[0].rows();
  multiply_packed_rows_by<Arch>(
      a, Parts * rows,
      [&](std::size_t j, std::size_t columns, std::size_t k, std::size_t depth, T* to) {
        for (std::size_t part = 0; part < Parts; ++part) {
          const std::size_t first = std::max(k, part * rows), last = std::min(k + depth, (part + 1) * rows);
          if (first < last)
            copy_columns<panel, xsimd::batch<T, Arch>, T>(b[part].column_block(j, columns), first - part * rows,
                                                          last - first, to + (first - k) * panel, step);
        }
      },
      c);
}

/// C = or, where the sum is resumed, += Aᵀ·B for at most cache_blocks::rows rows of C; A as it is, B packed in columns.
template <class Arch, class T>
void accumulate_packed_columns(bool resume, matrix_view<const T> a, const T* b, matrix_view<T> c) noexcept {
  constexpr tile_shape tile = tile_for<Arch>;
  constexpr std::size_t panel = panel_width<T, Arch>;
  alignas(memory_alignment) T packed[cache_blocks<T, Arch>::rows * tile.depth];
  for (std::size_t k = 0; k < a.rows(); k += tile.depth) {
    const std::size_t depth = std::min(tile.depth, a.rows() - k);
    for_each_block<Arch>(c.rows(), [&](std::size_t block, std::size_t first, std::size_t rows) {
      copy_columns<tile.rows, square_vector<T>, T>(a.column_block(first, rows), k, depth,
                                                   packed + block * tile.rows * tile.depth, 0);
    });
    for (std::size_t p = 0; p * panel < c.cols(); ++p) {
      const T* columns_of_b = b + (p * a.rows() + k) * panel;
      for_each_block<Arch>(c.rows(), [&](std::size_t block, std::size_t first, std::size_t rows) {
        T* to = c.data() + first * c.stride() + p * panel;
        for (std::size_t r = 0; r < rows; ++r) // the next panel's part of these rows
          __builtin_prefetch(to + r * c.stride() + panel, 1);
        multiply_block<T, Arch>(rows, std::min(panel, c.cols() - p * panel), resume || k != 0, depth,
                                packed_operand<T, tile.rows>{packed + block * tile.rows * tile.depth}, columns_of_b,
                                panel, to, c.stride());
      });
    }
  }
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
