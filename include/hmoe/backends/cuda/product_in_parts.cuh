// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/mma.cuh>
#include <hmoe/backends/cuda/shared_tile.cuh>
#include <hmoe/backends/cuda/tile_product.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

#include <cstdint>
#include <type_traits>

/// Products of floats on tensor cores with nearly float's precision: each float is taken in two tf32 parts,
///   v = high + low + rest,   |low| ≤ 2⁻¹¹ |v|,   |rest| ≤ 2⁻²³ |v|,
/// and a b = ah bh + (ah bl + al bh) + e with |e| ≤ 2⁻²¹ |a b|. Values of 16 bits are exact in tf32 and need no low
/// part: two products instead of three, |e| ≤ 2⁻²³ |a b|. Floats within 2⁻¹² of the largest one count as infinite.
/// The router's tiles take sums in parts of 128 terms, each of which begins at 0, so that what a tensor core cuts off
/// does not grow with the length of the sum.
namespace hmoe::backends::cuda_detail {

struct exact_fragment {
  tensor_fragment high;
};
struct fragment_parts {
  tensor_fragment high, low;
};
/// Of 16 rows or columns of S, 8 terms.
template <class S> using parts_of = std::conditional_t<sizeof(S) == 2, exact_fragment, fragment_parts>;

/// high: to nearest, ties away from zero. low: what is left, 12 bits at most, cut off after 11. Where high is infinite
/// or NaN, low is NaN.
[[nodiscard]] __device__ inline fragment_parts split(const tensor_fragment& values) {
  fragment_parts parts;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(parts.high.words[i]) : "f"(__uint_as_float(values.words[i])));
    const float rest = __uint_as_float(values.words[i]) - __uint_as_float(parts.high.words[i]);
    parts.low.words[i] = __float_as_uint(rest) & 0xffffe000U;
  }
  return parts;
}

/// high + low, the sums of ah bh and of the rest. An infinite or NaN factor shows in `high` as in a sum of floats.
[[nodiscard]] __device__ inline float join(float high, float low) { return isfinite(high) ? high + low : high; }

/// Row (or column) `i` of an operand, term k.
template <class Tile> [[nodiscard]] __device__ std::uint32_t load_word(const Tile& tile, int i, int k) {
  return __float_as_uint(to_float(Tile::k_major ? *tile.at(i, k) : *tile.at(k, i)));
}
template <class Tile> [[nodiscard]] __device__ auto make_parts(const tensor_fragment& values) {
  if constexpr (std::is_same_v<parts_of<typename Tile::value_type>, exact_fragment>)
    return exact_fragment{values};
  else
    return split(values);
}

/// 16 rows of the left operand, in the places where mma.sync m16n8k8 wants them.
template <class Tile> [[nodiscard]] __device__ auto load_row_parts(const Tile& tile, int m, int k0) {
  tensor_fragment values;
  if constexpr (Tile::k_major && sizeof(typename Tile::value_type) == 4) {
    load_rows_a(values, tile, m, k0);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w)
      values.words[w] = load_word(tile, m + mma_lane() / 4 + w % 2 * 8, k0 + mma_lane() % 4 + w / 2 * 4);
  }
  return make_parts<Tile>(values);
}
/// 16 columns of the right operand.
template <class Tile> [[nodiscard]] __device__ auto load_column_parts(const Tile& tile, int n, int k0) {
  tensor_fragment values;
  if constexpr (Tile::k_major && sizeof(typename Tile::value_type) == 4) {
    load_rows_b(values, tile, n, k0);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w)
      values.words[w] = load_word(tile, n + mma_lane() / 4 + w / 2 * 8, k0 + mma_lane() % 4 + w % 2 * 4);
  }
  return make_parts<Tile>(values);
}

/// high += ah bh, low += ah bl + al bh
template <class A, class B>
__device__ void multiply_parts(float (&high)[2][4], float (&low)[2][4], const A& a, const B& b) {
  tensor_atom_tf32::multiply(high, a.high, b.high);
  if constexpr (std::is_same_v<B, fragment_parts>)
    tensor_atom_tf32::multiply(low, a.high, b.low);
  if constexpr (std::is_same_v<A, fragment_parts>)
    tensor_atom_tf32::multiply(low, a.low, b.high);
}

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

#include <hmoe/core/macros_on.hpp>
