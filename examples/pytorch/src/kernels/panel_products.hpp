// SPDX-License-Identifier: MIT
// Products of matrices whose operands change from pass to pass: what a product needs of them is brought into the order
// of its kernel while it is used.
#pragma once

#include <hmoe/core/blocks.hpp>

#include <algorithm>
#include <cstddef>

/// Products: what is particular to a type of operands, float_products or pair_products. Sums are float, and each is one
/// chain over ascending k: its bits depend neither on the rows and columns that are computed beside it nor on how k is
/// cut. A *panel* has panel_columns columns of the second operand: for each step of k their values side by side.
namespace hmoe::python {

/// Where a kernel finds value (r, k) of its first operand: in rows, or packed by pack_columns<row_slots>.
enum class operand { rows, packed };

/// f(first, rows) for blocks of nearly the same height.
template <class Products, class F> void for_each_block(std::size_t rows, const F& f) {
  const std::size_t blocks = blocks_of(rows, Products::block_rows);
  for (std::size_t b = 0; b < blocks; ++b) {
    const block_range some = even_part(b, blocks, rows);
    f(some.first, some.count);
  }
}

/// sums[p][r][c] = or += Σ_k a(r, k) · panel_p(k, c): rows of row_length values, `stride` apart, by some panels.
/// pack(k, depth, to) packs values [k, k + depth) of all panels, each of length_of(depth) · panel_columns values.
template <class Products, class Pack>
void multiply_rows(const typename Products::value* a, std::size_t stride, std::size_t rows, std::size_t depth,
                   std::size_t panels, const Pack& pack, typename Products::packed* packed, bool resume,
                   float* sums) noexcept {
  constexpr std::size_t columns = Products::panel_columns;
  if (depth == 0 && !resume)
    std::fill_n(sums, panels * rows * columns, 0.0F);
  for (std::size_t k = 0; k < depth; k += Products::depth_together) {
    const std::size_t some = std::min(Products::depth_together, depth - k), length = Products::length_of(some);
    pack(k, some, packed);
    for (std::size_t p = 0; p < panels; ++p)
      for_each_block<Products>(rows, [&](std::size_t first, std::size_t count) {
        Products::template multiply_block<operand::rows>(count, length, a + first * stride + k, stride,
                                                         packed + p * length * columns, resume || k != 0,
                                                         sums + (p * rows + first) * columns);
      });
  }
}

/// What multiply_columns needs in memory for sums over `rows` rows and so many panels: whole cache lines.
template <class Products>
[[nodiscard]] constexpr std::size_t length_of_columns(std::size_t rows, std::size_t panels) noexcept {
  return round_up(Products::length_of(rows) * (Products::row_slots + panels * Products::panel_columns),
                  std::size_t{16});
}
/// to(i, j) = Σ_r a(r, i) · b(r, j), rounded once; i < m, j < columns; rows of a, b and `to` a, b and to_stride apart.
template <class Products, class Value = typename Products::value>
void multiply_columns(const Value* a, std::size_t a_stride, std::size_t m, const Value* b, std::size_t b_stride,
                      std::size_t columns, std::size_t rows, typename Products::packed* memory, Value* to,
                      std::size_t to_stride) noexcept {
  constexpr std::size_t panel = Products::panel_columns;
  const std::size_t length = Products::length_of(rows);
  auto* const block = memory + blocks_of(columns, panel) * panel * length;
  for (std::size_t j = 0; j < columns; j += panel)
    Products::template pack_columns<panel>(b + j, b_stride, std::min(panel, columns - j), rows, memory + j * length);
  for_each_block<Products>(m, [&](std::size_t first, std::size_t count) {
    Products::template pack_columns<Products::row_slots>(a + first, a_stride, count, rows, block);
    for (std::size_t j = 0; j < columns; j += panel) {
      alignas(64) float tile[Products::block_rows * panel];
      Products::template multiply_block<operand::packed>(count, length, reinterpret_cast<const Value*>(block), 0,
                                                         memory + j * length, false, tile);
      for (std::size_t r = 0; r < count; ++r)
        Products::store(tile + r * panel, std::min(panel, columns - j), to + (first + r) * to_stride + j);
    }
  });
}

} // namespace hmoe::python
