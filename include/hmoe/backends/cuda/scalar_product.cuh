// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>

#include <cuda_runtime_api.h>

/// A product of two matrices that are read through functions, in float: the three products of a router's projection,
/// whose operands have several types and lie in several arrays. Not for the experts, which have kernels on tensor
/// cores.
namespace hmoe::backends::cuda_detail {

inline constexpr int block_tile = 32;       ///< rows and columns that a block computes
inline constexpr int product_depth = 32;    ///< values of k that it holds at a time
inline constexpr int product_groups = 4;    ///< groups of threads that divide those k
inline constexpr int product_threads = 256; ///< each group: 8 × 8 threads of 4 × 4 sums

/// Both operands of a step, k-major, so that a thread reads its 4 rows or columns at once.
struct product_buffers {
  float a[product_depth][block_tile + 4], b[product_depth][block_tile + 4];
};

/// 32 × 32 values of an operand, 4 per thread, on their way from global to shared memory. Operand: operator()(i, k),
/// zero outside, and whether values that are neighbours in k are neighbours in memory.
template <class Operand> struct product_fragment {
  float values[4];

  __device__ static int row(int v) {
    const int t = static_cast<int>(threadIdx.x);
    return Operand::k_contiguous ? t / 32 + v * 8 : t % 32;
  }
  __device__ static int depth(int v) {
    const int t = static_cast<int>(threadIdx.x);
    return Operand::k_contiguous ? t % 32 : t / 32 + v * 8;
  }
  __device__ void load(const Operand& operand, index_t first, index_t k) {
#pragma unroll
    for (int v = 0; v < 4; ++v)
      values[v] = operand(first + static_cast<index_t>(row(v)), k + static_cast<index_t>(depth(v)));
  }
  __device__ void store(float (*to)[block_tile + 4]) const {
#pragma unroll
    for (int v = 0; v < 4; ++v)
      to[depth(v)][row(v)] = values[v];
  }
};

/// write(i, j, Σ_k a(i, k) b(j, k)) for the tile that begins at (first_i, first_j), k in [k_begin, k_end). The order of
/// the sum depends on the range of k only: group g sums the k with (k − k_begin) mod 32 in [8g, 8g + 8), and the four
/// sums are added in order.
template <class A, class B, class Write>
__device__ void multiply_tile(const A& a, const B& b, index_t first_i, index_t first_j, index_t k_begin, index_t k_end,
                              Write&& write) {
  __shared__ union alignas(16) {
    product_buffers operands;
    float sums[product_groups][block_tile][block_tile + 1];
  } memory;
  constexpr int per_group = product_threads / product_groups, depth_of_group = product_depth / product_groups;
  const int thread = static_cast<int>(threadIdx.x), group = thread / per_group;
  const int i = thread % per_group / 8 * 4, j = thread % 8 * 4;
  float sums[4][4] = {};
  product_fragment<A> next_a;
  product_fragment<B> next_b;
  next_a.load(a, first_i, k_begin);
  next_b.load(b, first_j, k_begin);
  for (index_t k = k_begin; k < k_end; k += product_depth) {
    next_a.store(memory.operands.a);
    next_b.store(memory.operands.b);
    __syncthreads();
    if (k + product_depth < k_end) {
      next_a.load(a, first_i, k + product_depth);
      next_b.load(b, first_j, k + product_depth);
    }
#pragma unroll
    for (int step = 0; step < depth_of_group; ++step) {
      const float* row_a = memory.operands.a[group * depth_of_group + step] + i;
      const float* row_b = memory.operands.b[group * depth_of_group + step] + j;
      const float4 va = *reinterpret_cast<const float4*>(row_a), vb = *reinterpret_cast<const float4*>(row_b);
      const float of_a[4] = {va.x, va.y, va.z, va.w}, of_b[4] = {vb.x, vb.y, vb.z, vb.w};
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          sums[r][c] = fmaf(of_a[r], of_b[c], sums[r][c]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c)
      memory.sums[group][i + r][j + c] = sums[r][c];
  __syncthreads();
#pragma unroll
  for (int v = 0; v < block_tile * block_tile / product_threads; ++v) {
    const int at = thread + v * product_threads, row = at / block_tile, col = at % block_tile;
    float sum = memory.sums[0][row][col];
#pragma unroll
    for (int g = 1; g < product_groups; ++g)
      sum += memory.sums[g][row][col];
    write(first_i + static_cast<index_t>(row), first_j + static_cast<index_t>(col), sum);
  }
}

} // namespace hmoe::backends::cuda_detail
