// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/kernel.hpp>
#include <hmoe/backends/simd/packing.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace hmoe::backends::simd_detail {

/// Where A(row, k) and B(k, column) of C = A·B lie: in the matrix as it is, or in its transpose.
enum class layout { plain, transposed };

/// C[rows × columns] = or += A·B for one panel of columns, B's rows lying b_step apart: where C has fewer columns than
/// a panel, in a tile beside it.
template <class T, class Arch, class A>
[[gnu::always_inline]] inline void multiply_block(std::size_t rows, std::size_t columns, bool resume, std::size_t depth,
                                                  A a, const T* b, std::size_t b_step, T* c,
                                                  std::size_t c_step) noexcept {
  constexpr tile_shape tile = tile_for<Arch>;
  constexpr std::size_t panel = panel_width<T, Arch>;
  if (columns == panel)
    return multiply_rows<tile.rows, tile.vectors, T, Arch>(rows, resume, depth, a, b, b_step, c, c_step);
  alignas(memory_alignment) T edge[tile.rows * panel];
  if (resume)
    for (std::size_t r = 0; r < rows; ++r)
      std::copy_n(c + r * c_step, columns, edge + r * panel);
  multiply_rows<tile.rows, tile.vectors, T, Arch>(rows, resume, depth, a, b, b_step, edge, panel);
  for (std::size_t r = 0; r < rows; ++r)
    std::copy_n(edge + r * panel, columns, c + r * c_step);
}

/// f(block, first row, rows) for blocks of nearly equal height: a short last block would run at a fraction of the
/// speed.
template <class Arch> [[nodiscard]] constexpr std::size_t row_blocks(std::size_t rows) noexcept {
  return blocks_of(rows, tile_for<Arch>.rows);
}
template <class Arch, class F> [[gnu::always_inline]] inline void for_each_block(std::size_t rows, const F& f) {
  const std::size_t blocks = row_blocks<Arch>(rows);
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t first = b * rows / blocks;
    f(b, first, (b + 1) * rows / blocks - first);
  }
}

/// Rows [first_k, first_k + depth) of a panel that has `columns` columns of B, from its transpose; returns their
/// distance. Few columns lie closer together than a panel is wide, and a kernel reads those of the next k as further
/// ones, which are nobody's.
template <std::size_t Panel, class T>
[[nodiscard]] std::size_t interleave_columns(matrix_view<const T> from, std::size_t first_k, std::size_t depth,
                                             T* to) noexcept {
  constexpr std::size_t few = Panel / 4;
  if constexpr (few >= 4)
    if (from.rows() <= few) {
      interleave_rows<few, T>(from, first_k, depth, to);
      std::fill_n(to + depth * few, Panel - few, T(0));
      return few;
    }
  interleave_rows<Panel, T>(from, first_k, depth, to);
  return Panel;
}

/// C = or += A·B, panel after panel of columns. A panel is first copied, `depth` rows of k at a time, into a buffer
/// that fits L1; but not where it can be read as it lies (B is not transposed, and its columns fill the panel) and is
/// read for few rows only.
template <layout LayoutA, layout LayoutB, bool Accumulate, class Arch, class A, class B, class T>
void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<T> c) noexcept {
  constexpr tile_shape tile = tile_for<Arch>;
  constexpr std::size_t panel = panel_width<T, Arch>;
  constexpr std::size_t read_in_place = 16; // blocks of rows: for fewer a copy takes longer than it saves
  using operand = std::conditional_t<LayoutA == layout::plain, plain_operand<T>, transposed_operand<T>>;
  alignas(memory_alignment) T packed[tile.depth * panel + panel];

  const std::size_t total = LayoutA == layout::plain ? a.cols() : a.rows();
  const std::size_t row_step = LayoutA == layout::plain ? a.stride() : 1;
  const std::size_t k_step = LayoutA == layout::plain ? 1 : a.stride();
  if (total == 0) { // an empty sum; a and b may have no memory at all
    for (std::size_t r = 0; r < c.rows() && !Accumulate; ++r)
      std::fill_n(c.row(r).data(), c.cols(), T(0));
    return;
  }
  if (c.rows() == 0)
    return;
  for (std::size_t j = 0; j < c.cols(); j += panel) {
    const std::size_t columns = std::min(panel, c.cols() - j);
    for (std::size_t k = 0; k < total; k += tile.depth) {
      const std::size_t depth = std::min(tile.depth, total - k);
      const T* rows_of_b = packed;
      std::size_t b_step = panel;
      if constexpr (LayoutB == layout::transposed) {
        b_step = interleave_columns<panel, T>(b.row_block(j, columns), k, depth, packed);
      } else if (columns < panel || row_blocks<Arch>(c.rows()) > read_in_place) {
        copy_columns<panel, xsimd::batch<T, Arch>, T>(b.column_block(j, columns), k, depth, packed, 0);
      } else {
        rows_of_b = b.data() + k * b.stride() + j;
        b_step = b.stride();
      }
      for_each_block<Arch>(c.rows(), [&](std::size_t, std::size_t first, std::size_t rows) {
        multiply_block<T, Arch>(rows, columns, Accumulate || k != 0, depth,
                                operand{a.data() + first * row_step + k * k_step, a.stride()}, rows_of_b, b_step,
                                c.data() + first * c.stride() + j, c.stride());
      });
    }
  }
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
