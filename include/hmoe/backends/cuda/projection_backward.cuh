// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/backends/cuda/product_in_parts.cuh>
#include <hmoe/backends/cuda/tile_loader.cuh>
#include <hmoe/core/config.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>

/// From ∂L/∂columns, the logits and gate logits side by side, to tokens and parameters.
namespace hmoe::backends::cuda_detail {

/// How the sum over tokens of a weight gradient is cut into parts that run side by side: as many as it takes to fill a
/// large device, but none shorter than 256 tokens. It depends on the shapes only, so the sum's order does.
struct projection_scratch {
  float* partials; ///< [parts × columns × d], when there is more than one part
  std::size_t parts, part_tokens, columns, d;

  [[nodiscard]] static projection_scratch sized(std::size_t tokens, std::size_t columns, std::size_t d) noexcept {
    const std::size_t parts = most_parts(tokens, columns, d);
    const std::size_t length = (tokens + parts - 1) / parts;
    const std::size_t rounded =
        std::max<std::size_t>(1, blocks_of(length, parts_tile<float>::shape.k)) * parts_tile<float>::shape.k;
    return {nullptr, std::max<std::size_t>(1, blocks_of(tokens, rounded)), rounded, columns, d};
  }
  /// Floats to reserve for up to so many tokens; the number of parts itself may fall as tokens grow.
  [[nodiscard]] static std::size_t values(std::size_t tokens, std::size_t columns, std::size_t d) noexcept {
    const std::size_t most = most_parts(tokens, columns, d);
    return most == 1 ? 0 : most * columns * d;
  }

private:
  [[nodiscard]] static std::size_t most_parts(std::size_t tokens, std::size_t columns, std::size_t d) noexcept {
    constexpr std::size_t wanted_blocks = 512, shortest = 256;
    const std::size_t tiles =
        std::size_t{blocks_of(columns, parts_tile<float>::shape.m)} * blocks_of(d, parts_tile<float>::shape.n);
    const std::size_t most = std::max<std::size_t>(1, tokens / shortest);
    return std::clamp<std::size_t>(wanted_blocks / std::max<std::size_t>(1, tiles), 1, most);
  }
};

/// dx[t, c] += Σ_j d_columns[t, j] W[j, c]
template <class Tile>
__global__ void __launch_bounds__(Tile::shape.threads(), Tile::shape.blocks)
    project_back(matrix_rows<float> d_columns, projection_rows weights, float* dx, std::size_t dx_stride) {
  constexpr block_shape shape = Tile::shape;
  const int first_token = static_cast<int>(blockIdx.x) * shape.m, first_column = static_cast<int>(blockIdx.y) * shape.n;
  k_major_loader<matrix_rows<float>, shape.m, shape.k, shape.threads()> load_a(d_columns, first_token);
  mn_major_loader<projection_rows, shape.n, shape.k, shape.threads()> load_b(weights, first_column);
  product_in_parts<Tile>(load_a, load_b, 0, d_columns.columns, true)
      .for_each_pair([&](int row, int column, const float* pair) {
        const int t = first_token + row, c = first_column + column;
        float* const to = dx + static_cast<std::size_t>(t) * dx_stride + c;
        if (t < d_columns.count && c < weights.columns)
          to[0] += pair[0];
        if (t < d_columns.count && c + 1 < weights.columns)
          to[1] += pair[1];
      });
}

/// Where row j of the stacked gradients is.
[[nodiscard]] __device__ inline float* gradient_row(const router_gradient_arrays& gradients, index_t experts, index_t d,
                                                    index_t j) {
  return j < experts ? gradients.weight + std::size_t{j} * d : gradients.shared_gate + std::size_t{j - experts} * d;
}

/// gradients.weight[j, c] += Σ_t d_columns[t, j] x[t, c], or a part of that sum to `partials`
template <class S, class Tile>
__global__ void __launch_bounds__(Tile::shape.threads(), Tile::shape.blocks)
    projection_weight_gradient(matrix_rows<float> d_columns, matrix_rows<S> x, index_t experts,
                               projection_scratch scratch, router_gradient_arrays gradients) {
  constexpr block_shape shape = Tile::shape;
  const int first_row = static_cast<int>(blockIdx.x) * shape.m, first_column = static_cast<int>(blockIdx.y) * shape.n;
  const std::size_t begin = blockIdx.z * scratch.part_tokens, end = begin + scratch.part_tokens;
  const int tokens = d_columns.count;
  mn_major_loader<matrix_rows<float>, shape.m, shape.k, shape.threads()> load_a(d_columns, first_row);
  mn_major_loader<matrix_rows<S>, shape.n, shape.k, shape.threads()> load_b(x, first_column);
  const auto d = static_cast<index_t>(x.columns);
  product_in_parts<Tile>(load_a, load_b, static_cast<int>(begin),
                         end < static_cast<std::size_t>(tokens) ? static_cast<int>(end) : tokens, true)
      .for_each_pair([&](int row, int column, const float* pair) {
        const auto j = static_cast<index_t>(first_row + row), c = static_cast<index_t>(first_column + column);
        if (j >= scratch.columns)
          return;
        for (index_t i = 0; i < 2 && c + i < d; ++i)
          if (scratch.parts == 1)
            gradient_row(gradients, experts, d, j)[c + i] += pair[i];
          else
            scratch.partials[(blockIdx.z * scratch.columns + j) * d + c + i] = pair[i];
      });
}

/// A block has columns of d in row blockIdx.y of the stacked gradients.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    add_parts(projection_scratch scratch, index_t experts, router_gradient_arrays gradients) {
  const index_t c = blockIdx.x * Threads + threadIdx.x, j = blockIdx.y;
  if (c >= scratch.d)
    return;
  float sum = 0;
  for (std::size_t part = 0; part < scratch.parts; ++part)
    sum += scratch.partials[(part * scratch.columns + j) * scratch.d + c];
  gradient_row(gradients, experts, static_cast<index_t>(scratch.d), j)[c] += sum;
}

/// bias[j] += Σ_t d_columns[t, j]: a block has 8 columns, each of its warps 4 tokens at a time, so that many loads are
/// on their way at once. Sums are added in pairs of lanes 8 and 16 apart, then warp by warp.
inline constexpr unsigned bias_columns = 8;
template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 1)
    bias_gradient(matrix_rows<float> d_columns, index_t experts, float* bias) {
  __shared__ double sums[Warps][bias_columns];
  constexpr unsigned tokens_of_warp = 32 / bias_columns;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = lane % bias_columns;
  const index_t j = blockIdx.x * bias_columns + column, tokens = static_cast<index_t>(d_columns.count);
  double sum = 0;
  if (j < experts) {
#pragma unroll 8
    for (index_t t = warp * tokens_of_warp + lane / bias_columns; t < tokens; t += Warps * tokens_of_warp)
      sum += static_cast<double>(d_columns.values[t * d_columns.stride + j]);
  }
#pragma unroll
  for (unsigned step = bias_columns; step < 32; step *= 2)
    sum += __shfl_xor_sync(0xffffffffU, sum, static_cast<int>(step));
  if (lane < bias_columns)
    sums[warp][column] = sum;
  __syncthreads();
  if (warp != 0 || lane >= bias_columns || j >= experts)
    return;
  for (unsigned w = 1; w < Warps; ++w)
    sum += sums[w][column];
  bias[j] += static_cast<float>(sum);
}

template <class S>
void launch_projection_backward(const matrix_rows<S>& x, const projection_rows& rows, const float* d_columns,
                                const projection_scratch& scratch, float* dx, std::size_t dx_stride,
                                const router_gradient_arrays& gradients, cudaStream_t stream) {
  constexpr unsigned adders = 256, bias_warps = 32;
  using tile = parts_tile<float>;
  constexpr unsigned threads = tile::shape.threads();
  const auto tokens = static_cast<std::size_t>(x.count), d = static_cast<std::size_t>(rows.columns);
  const auto columns = static_cast<std::size_t>(rows.count);
  const auto experts = static_cast<index_t>(rows.experts);
  const matrix_rows<float> d_rows{d_columns, columns, x.count, rows.count};
  const dim3 token_tiles(blocks_of(tokens, tile::shape.m), blocks_of(d, tile::shape.n));
  launch{"project_back", stream, token_tiles, threads}(project_back<tile>, d_rows, rows, dx, dx_stride);
  const dim3 weight_tiles(blocks_of(columns, tile::shape.m), blocks_of(d, tile::shape.n),
                          static_cast<unsigned>(scratch.parts));
  launch{"projection_weight_gradient", stream, weight_tiles, threads}(projection_weight_gradient<S, tile>, d_rows, x,
                                                                      experts, scratch, gradients);
  if (scratch.parts > 1)
    launch{"add_parts", stream, dim3(blocks_of(d, adders), static_cast<unsigned>(columns)),
           adders}(add_parts<adders>, scratch, experts, gradients);
  if (gradients.bias != nullptr)
    launch{"bias_gradient", stream, blocks_of(experts, bias_columns), bias_warps * 32}(bias_gradient<bias_warps>,
                                                                                       d_rows, experts, gradients.bias);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
