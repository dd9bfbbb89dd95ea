// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/kernel.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// Where A(row, k) and B(k, column) of C = A·B lie: in the matrix as it is, or in its transpose.
enum class layout { plain, transposed };

/// C = or += A·B, panel after panel of columns. A panel that cannot be read where it lies (B is transposed, or its last
/// columns are fewer than a panel has) is first copied, `depth` rows of k at a time, into a buffer that fits L1.
template <layout LayoutA, layout LayoutB, bool Accumulate, class Arch, class A, class B, class T>
void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<T> c) noexcept {
  constexpr tile_shape tile = tile_for<Arch>;
  constexpr std::size_t panel = tile.vectors * xsimd::batch<T, Arch>::size;
  alignas(memory_alignment) T packed[tile.depth * panel];
  alignas(memory_alignment) T edge[tile.rows * panel];

  const std::size_t total = LayoutA == layout::plain ? a.cols() : a.rows();
  const std::size_t row_step = LayoutA == layout::plain ? a.stride() : 1;
  const std::size_t k_step = LayoutA == layout::plain ? 1 : a.stride();
  if (total == 0) { // an empty sum; a and b may have no memory at all
    for (std::size_t r = 0; r < c.rows() && !Accumulate; ++r)
      std::fill_n(c.row(r).data(), c.cols(), T(0));
    return;
  }
  // Row blocks of nearly equal height: a short last block would run at a fraction of the speed.
  const std::size_t blocks = (c.rows() + tile.rows - 1) / tile.rows;

  for (std::size_t j = 0; j < c.cols(); j += panel) {
    const std::size_t columns = std::min(panel, c.cols() - j);
    for (std::size_t k = 0; k < total; k += tile.depth) {
      const std::size_t depth = std::min(tile.depth, total - k);
      const T* rows_of_b = b.data();
      std::size_t b_step = b.stride();
      if constexpr (LayoutB == layout::plain)
        rows_of_b += k * b.stride() + j;
      if (LayoutB == layout::transposed || columns < panel) {
        for (std::size_t i = 0; i < depth; ++i)
          for (std::size_t n = 0; n < panel; ++n)
            packed[i * panel + n] = n >= columns                    ? T(0)
                                    : LayoutB == layout::transposed ? b(j + n, k + i)
                                                                    : b(k + i, j + n);
        rows_of_b = packed;
        b_step = panel;
      }
      const bool resume = Accumulate || k != 0;
      for (std::size_t block = 0; block < blocks; ++block) {
        const std::size_t first = block * c.rows() / blocks, rows = (block + 1) * c.rows() / blocks - first;
        const T* rows_of_a = a.data() + first * row_step + k * k_step;
        T* out = c.data() + first * c.stride() + j;
        const auto run = [&](T* to, std::size_t to_step) {
          if (resume)
            multiply_rows<tile.rows, tile.vectors, true, T, Arch>(rows, depth, rows_of_a, row_step, k_step, rows_of_b,
                                                                  b_step, to, to_step);
          else
            multiply_rows<tile.rows, tile.vectors, false, T, Arch>(rows, depth, rows_of_a, row_step, k_step, rows_of_b,
                                                                   b_step, to, to_step);
        };
        if (columns == panel) {
          run(out, c.stride());
          continue;
        }
        if (resume)
          for (std::size_t r = 0; r < rows; ++r)
            std::copy_n(out + r * c.stride(), columns, edge + r * panel);
        run(edge, panel);
        for (std::size_t r = 0; r < rows; ++r)
          std::copy_n(edge + r * panel, columns, out + r * c.stride());
      }
    }
  }
}

} // namespace hmoe::backends::simd_detail
