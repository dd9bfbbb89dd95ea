// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/backends/cuda/product_in_parts.cuh>
#include <hmoe/backends/cuda/tile_loader.cuh>
#include <hmoe/backends/cuda/tile_product.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// The router's product on tensor cores, with floats in two parts (see product_in_parts.cuh), for any number of tokens:
/// a form for few tokens alone would give a token other bits in another batch. Compared with exact arithmetic,
///   |error of a logit| ≤ (160 + d / 2048) 2⁻²³ Σ_c |x_c w_c|
/// where a tensor core adds eight products and the sum so far to within 9 · 2⁻²³ of their absolute values; a chain of
/// float additions has d / 2 in place of 160 + d / 2048. In units of 2⁻²³: 16 · 9 in the chain of a part, 4 for the
/// representation in two parts, 8 / 2 and d / 1024 / 2 for the additions of parts and groups, 1 for bias and low sums.
namespace hmoe::backends::cuda_detail {

/// All terms of a part are on their way at once.
struct few_tokens {
  static constexpr block_shape shape{16, 64, 64, 1, 4, 4};
  static constexpr int stages = 2;
};
inline constexpr std::size_t most_few_tokens = 64;
// A block's sums begin anew where logit_parts says that a part ends, and its tiles are those that it counts.
static_assert(terms_of_part == static_cast<int>(logit_parts::part_terms) &&
              parts_tile<float>::shape.m == static_cast<int>(logit_parts::tile) &&
              parts_tile<float>::shape.n == static_cast<int>(logit_parts::tile));

/// Block (·, ·, z) has the terms from z · `terms` on, a part or a group:
///   sums[z, t, j] = Σ_parts (Σ x[t, c] w[j, c] of the part)
template <class S, class Tile>
__global__ void __launch_bounds__(Tile::shape.threads(), Tile::shape.blocks)
    project_tokens(matrix_rows<S> x, projection_rows rows, int terms, float* sums) {
  constexpr block_shape shape = Tile::shape;
  const int first_token = static_cast<int>(blockIdx.x) * shape.m, first_row = static_cast<int>(blockIdx.y) * shape.n;
  const int begin = static_cast<int>(blockIdx.z) * terms, end = begin + terms < x.columns ? begin + terms : x.columns;
  k_major_loader<matrix_rows<S>, shape.m, shape.k, shape.threads()> load_x(x, first_token);
  k_major_loader<projection_rows, shape.n, shape.k, shape.threads()> load_w(rows, first_row);
  const bool busy = first_row + tile_sums<shape>::warp_column() < rows.count;
  const tile_sums<shape> total = product_in_parts<Tile>(load_x, load_w, begin, end, busy);
  float* const out =
      sums + std::size_t{blockIdx.z} * static_cast<std::size_t>(x.count) * static_cast<std::size_t>(rows.count);
  total.for_each_pair([&](int row, int column, const float* pair) {
    const int token = first_token + row, j = first_row + column;
    if (token < x.count && j < rows.count)
      store_pair(out + static_cast<std::size_t>(token) * static_cast<std::size_t>(rows.count) + j, pair[0], pair[1],
                 rows.count - j);
  });
}

template <class Tile, class S>
void launch_project_tokens(const matrix_rows<S>& x, const projection_rows& rows, const logit_parts& parts, float* sums,
                           cudaStream_t stream) {
  const dim3 grid(blocks_of(parts.tokens, Tile::shape.m), blocks_of(parts.columns, Tile::shape.n),
                  static_cast<unsigned>(parts.sums()));
  launch{"project_tokens", stream, grid, Tile::shape.threads()}(project_tokens<S, Tile>, x, rows,
                                                                static_cast<int>(parts.terms()), sums);
}

/// `sums`: room for logit_parts::values floats. What it returns tells the next kernel how to read them.
template <class S>
logit_sums launch_projection(const matrix_rows<S>& x, const projection_rows& rows, const logit_parts& parts,
                             const float* bias, float* sums, float* gate_logits, cudaStream_t stream) {
  if (parts.tokens > most_few_tokens)
    launch_project_tokens<parts_tile<S>>(x, rows, parts, sums, stream);
  else if (parts.tokens > 0)
    launch_project_tokens<few_tokens>(x, rows, parts, sums, stream);
  return {sums,
          static_cast<index_t>(parts.sums()),
          static_cast<index_t>(parts.tokens),
          static_cast<index_t>(parts.columns),
          static_cast<index_t>(rows.experts),
          parts.by_part,
          bias,
          gate_logits};
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
