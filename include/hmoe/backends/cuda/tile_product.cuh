// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/mma.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

namespace hmoe::backends::cuda_detail {

/// The m × n sums of a tile, spread over the registers of a block.
template <block_shape Shape> struct tile_sums {
  static constexpr int warp_m = Shape.m / Shape.warps_m, warp_n = Shape.n / Shape.warps_n;
  static constexpr int blocks_m = warp_m / 16, blocks_n = warp_n / 16;
  static_assert(warp_m % 16 == 0 && warp_n % 16 == 0, "block_shape: a warp needs whole blocks of 16 × 16 sums");

  float values[blocks_m][blocks_n][2][4];

  /// First row and column of this thread's warp.
  [[nodiscard]] __device__ static int warp_row() { return static_cast<int>(threadIdx.x) / 32 / Shape.warps_n * warp_m; }
  [[nodiscard]] __device__ static int warp_column() {
    return static_cast<int>(threadIdx.x) / 32 % Shape.warps_n * warp_n;
  }

  /// f(row, column, left, right) for all sums of this thread, row by row, so that what belongs to a row is in registers
  /// for as long as it is needed: left[0], left[1] at (row, column) and the next column,
  /// right[0], right[1] eight columns further.
  template <class F> __device__ void for_each(const F& f) const {
    const int l = mma_lane();
#pragma unroll
    for (int i = 0; i < blocks_m; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int j = 0; j < blocks_n; ++j)
          f(warp_row() + 16 * i + 8 * h + l / 4, warp_column() + 16 * j + l % 4 * 2, values[i][j][0] + 2 * h,
            values[i][j][1] + 2 * h);
  }
  /// f(row, column, pair) for all pairs of neighbours in a row.
  template <class F> __device__ void for_each_pair(const F& f) const {
    for_each([&](int row, int column, const float* left, const float* right) {
      f(row, column, left);
      f(row, column + 8, right);
    });
  }
};

/// What this warp multiplies of the second operand: load(columns, n, k) has the columns from n on, terms from k on.
/// Called for ascending k of a step.
template <class Atom, class Tile, int Blocks> class column_fragments {
public:
  __device__ explicit column_fragments(const Tile& from) : tile_(from) {}
  __device__ void load(typename Atom::b_fragment (&columns)[Blocks], int n, int k) const {
#pragma unroll
    for (int j = 0; j < Blocks; ++j)
      columns[j] = Atom::load_b(tile_, n + 16 * j, k);
  }

private:
  Tile tile_;
};

/// sums += one step of both operands.
template <class Atom, block_shape Shape, class TileA, class TileB>
__device__ void multiply_step(tile_sums<Shape>& sums, const TileA& a, const TileB& b) {
  using sums_type = tile_sums<Shape>;
  column_fragments<Atom, TileB, sums_type::blocks_n> fragments(b);
#pragma unroll Atom::unroll
  for (int k = 0; k < Shape.k; k += Atom::k) {
    typename Atom::b_fragment columns[sums_type::blocks_n];
    fragments.load(columns, sums_type::warp_column(), k);
#pragma unroll
    for (int i = 0; i < sums_type::blocks_m; ++i) {
      const typename Atom::a_fragment rows = Atom::load_a(a, sums_type::warp_row() + 16 * i, k);
#pragma unroll
      for (int j = 0; j < sums_type::blocks_n; ++j)
        Atom::multiply(sums.values[i][j], rows, columns[j]);
    }
  }
}

/// The product of two operands over `depth` terms: a ring of `stages` steps in shared memory, of which all but one are
/// on their way while warps multiply the oldest. Every sum is one chain in ascending order of terms, whatever the tile.
template <class Atom, block_shape Shape, class LoaderA, class LoaderB>
__device__ tile_sums<Shape> multiply_tile(LoaderA& a, LoaderB& b, int depth, int stages,
                                          typename Atom::value_type* shared) {
  using sums_type = tile_sums<Shape>;
  using tile_a = typename LoaderA::tile;
  using tile_b = typename LoaderB::tile;
  constexpr int stage_size = tile_a::size + tile_b::size;
  sums_type sums{};
  const int steps = (depth + Shape.k - 1) / Shape.k;
  int writing = 0; // place in the ring
  for (int step = 1 - stages; step < steps; ++step) {
    if (step >= 0) {
      wait_for_copies(stages - 2);
      __syncthreads(); // all see this step, and nobody still reads the one before, which is overwritten now
    }
    const int ahead = step + stages - 1, reading = writing + 1 == stages ? 0 : writing + 1; // the oldest of the ring
    auto* next = shared + writing * stage_size;
    if (ahead < steps) {
      a.fetch(next, ahead * Shape.k);
      b.fetch(next + tile_a::size, ahead * Shape.k);
    }
    commit_copies();
    if (step >= 0)
      multiply_step<Atom>(sums, tile_a{shared + reading * stage_size},
                          tile_b{shared + reading * stage_size + tile_a::size});
    writing = reading;
  }
  wait_for_copies(0);
  __syncthreads(); // shared memory is free for the next tile
  return sums;
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
