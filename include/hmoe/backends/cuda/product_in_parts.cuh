// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/float_parts.cuh>
#include <hmoe/backends/cuda/shared_tile.cuh>
#include <hmoe/backends/cuda/tile_product.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

/// A tile of a product of the router on tensor cores: floats in two parts (see float_parts.cuh), and sums in parts of
/// 128 terms, each of which begins at 0, so that what a tensor core cuts off does not grow with the length of the sum.
namespace hmoe::backends::cuda_detail {

inline constexpr int terms_of_part = 128;

/// A warp has 32 × 32 sums, so that splitting the operands takes fewer instructions than the tensor cores take clocks;
/// 32 × 16 where both operands are floats, which take more registers.
template <class S> struct parts_tile {
  static constexpr block_shape shape =
      sizeof(S) == 2 ? block_shape{64, 64, 32, 2, 2, 3} : block_shape{64, 64, 32, 2, 4, 2};
  static constexpr int stages = 3; ///< steps on their way at once
};

/// total += the sum of a part, and both begin anew.
template <block_shape Shape>
__device__ void add_part(tile_sums<Shape>& total, tile_sums<Shape>& high, tile_sums<Shape>& low) {
#pragma unroll
  for (int i = 0; i < tile_sums<Shape>::blocks_m; ++i)
#pragma unroll
    for (int j = 0; j < tile_sums<Shape>::blocks_n; ++j)
#pragma unroll
      for (int v = 0; v < 8; ++v)
        total.values[i][j][v / 4][v % 4] += join(high.values[i][j][v / 4][v % 4], low.values[i][j][v / 4][v % 4]);
  high = low = {};
}

/// high and low += a step.
template <block_shape Shape, class TileA, class TileB>
__device__ void multiply_step_in_parts(tile_sums<Shape>& high, tile_sums<Shape>& low, const TileA& a, const TileB& b) {
  using sums_type = tile_sums<Shape>;
#pragma unroll 4
  for (int k = 0; k < Shape.k; k += tensor_atom_tf32::k) {
    parts_of<typename TileB::value_type> columns[sums_type::blocks_n];
#pragma unroll
    for (int j = 0; j < sums_type::blocks_n; ++j)
      columns[j] = load_column_parts(b, sums_type::warp_column() + 16 * j, k);
#pragma unroll
    for (int i = 0; i < sums_type::blocks_m; ++i) {
      const auto rows = load_row_parts(a, sums_type::warp_row() + 16 * i, k);
#pragma unroll
      for (int j = 0; j < sums_type::blocks_n; ++j)
        multiply_parts(high.values[i][j], low.values[i][j], rows, columns[j]);
    }
  }
}

/// Sums over the terms from `begin` to `end` of two operands, which their loaders bring. Loaders give zeros behind the
/// operands' last term; where `end` is before it, end − begin is a whole number of steps. A warp that is not
/// `busy` only helps to load.
template <class Tile, class LoaderA, class LoaderB>
__device__ tile_sums<Tile::shape> product_in_parts(LoaderA& a, LoaderB& b, int begin, int end, bool busy) {
  constexpr block_shape shape = Tile::shape;
  constexpr int stages = Tile::stages, steps_of_part = terms_of_part / shape.k;
  static_assert(terms_of_part % shape.k == 0);
  using tile_a = typename LoaderA::tile;
  using tile_b = typename LoaderB::tile;
  alignas(128) __shared__ typename tile_a::value_type shared_a[stages * tile_a::size];
  alignas(128) __shared__ typename tile_b::value_type shared_b[stages * tile_b::size];
  const int steps = (end - begin + shape.k - 1) / shape.k;
  tile_sums<shape> total{}, high{}, low{};

  const auto fetch = [&](int step) {
    if (step < steps) {
      a.fetch(shared_a + step % stages * tile_a::size, begin + step * shape.k);
      b.fetch(shared_b + step % stages * tile_b::size, begin + step * shape.k);
    }
    commit_copies();
  };
  for (int step = 0; step < stages; ++step)
    fetch(step);
  for (int step = 0; step < steps; ++step) {
    wait_for_copies(stages - 1);
    __syncthreads(); // all see this step
    if (busy) {
      multiply_step_in_parts(high, low, tile_a{shared_a + step % stages * tile_a::size},
                             tile_b{shared_b + step % stages * tile_b::size});
      if ((step + 1) % steps_of_part == 0 || step + 1 == steps)
        add_part(total, high, low);
    }
    if (step + stages < steps)
      __syncthreads(); // nobody still reads it
    fetch(step + stages);
  }
  wait_for_copies(0);
  return total;
}

} // namespace hmoe::backends::cuda_detail
