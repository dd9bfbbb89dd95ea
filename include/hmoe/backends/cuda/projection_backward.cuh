// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/scalar_product.cuh>
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
    constexpr std::size_t wanted_blocks = 512, shortest = 256;
    const std::size_t tiles = std::size_t{blocks_of(columns, block_tile)} * blocks_of(d, block_tile);
    const std::size_t most = std::max<std::size_t>(1, tokens / shortest);
    const std::size_t parts = std::clamp<std::size_t>(wanted_blocks / std::max<std::size_t>(1, tiles), 1, most);
    const std::size_t length = (tokens + parts - 1) / parts;
    const std::size_t rounded = std::max<std::size_t>(1, blocks_of(length, product_depth)) * product_depth;
    return {nullptr, std::max<std::size_t>(1, blocks_of(tokens, rounded)), rounded, columns, d};
  }
  [[nodiscard]] std::size_t values() const noexcept { return parts == 1 ? 0 : parts * columns * d; }
};

/// ∂L/∂columns as the left operand of d_columns · W: rows are tokens.
struct gradient_rows {
  const float* values;
  index_t tokens, columns;
  static constexpr bool k_contiguous = true;
  __device__ float operator()(index_t t, index_t j) const {
    return t < tokens && j < columns ? values[std::size_t{t} * columns + j] : 0.0F;
  }
};
/// The same as the left operand of d_columnsᵀ · x: rows are columns.
struct gradient_columns {
  const float* values;
  index_t tokens, columns;
  static constexpr bool k_contiguous = false;
  __device__ float operator()(index_t j, index_t t) const {
    return t < tokens && j < columns ? values[std::size_t{t} * columns + j] : 0.0F;
  }
};
/// Right operands that are read across: the weights, and the tokens.
struct projection_columns {
  projection_rows rows;
  static constexpr bool k_contiguous = false;
  __device__ float operator()(index_t c, index_t j) const { return rows(j, c); }
};
template <class S> struct token_columns {
  token_rows<S> rows;
  static constexpr bool k_contiguous = false;
  __device__ float operator()(index_t c, index_t t) const { return rows(t, c); }
};

/// dx[t, c] += Σ_j d_columns[t, j] W[j, c]
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 2)
    project_back(gradient_rows d_columns, projection_columns weights, float* dx, std::size_t dx_stride) {
  multiply_tile(d_columns, weights, blockIdx.x * block_tile, blockIdx.y * block_tile, 0, d_columns.columns,
                [&](index_t t, index_t c, float sum) {
                  if (t < d_columns.tokens && c < weights.rows.d)
                    dx[t * dx_stride + c] += sum;
                });
}

/// Where row j of the stacked gradients is.
[[nodiscard]] __device__ inline float* gradient_row(const router_gradient_arrays& gradients, index_t experts, index_t d,
                                                    index_t j) {
  return j < experts ? gradients.weight + std::size_t{j} * d : gradients.shared_gate + std::size_t{j - experts} * d;
}

/// gradients.weight[j, c] += Σ_t d_columns[t, j] x[t, c], or a part of that sum to `partials`
template <class S>
__global__ void __launch_bounds__(product_threads, 2)
    projection_weight_gradient(gradient_columns d_columns, token_columns<S> x, index_t experts,
                               projection_scratch scratch, router_gradient_arrays gradients) {
  const auto begin = static_cast<index_t>(blockIdx.z * scratch.part_tokens);
  const auto end = static_cast<index_t>(begin + scratch.part_tokens);
  const index_t d = x.rows.d;
  multiply_tile(d_columns, x, blockIdx.x * block_tile, blockIdx.y * block_tile, begin,
                end < d_columns.tokens ? end : d_columns.tokens, [&](index_t j, index_t c, float sum) {
                  if (j >= d_columns.columns || c >= d)
                    return;
                  if (scratch.parts == 1)
                    gradient_row(gradients, experts, d, j)[c] += sum;
                  else
                    scratch.partials[(blockIdx.z * scratch.columns + j) * d + c] = sum;
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

/// bias[j] += Σ_t d_columns[t, j]: a block has 32 columns, each of its warps every Warps-th token.
template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 4)
    bias_gradient(gradient_columns d_columns, index_t experts, float* bias) {
  __shared__ double sums[Warps][32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const index_t j = blockIdx.x * 32 + lane;
  double sum = 0;
  if (j < experts)
    for (index_t t = warp; t < d_columns.tokens; t += Warps)
      sum += static_cast<double>(d_columns(j, t));
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || j >= experts)
    return;
  for (unsigned w = 1; w < Warps; ++w)
    sum += sums[w][lane];
  bias[j] += static_cast<float>(sum);
}

template <class S>
void launch_projection_backward(const token_rows<S>& x, const projection_rows& rows, const float* d_columns,
                                const projection_scratch& scratch, float* dx, std::size_t dx_stride,
                                const router_gradient_arrays& gradients, cudaStream_t stream) {
  constexpr unsigned adders = 256, bias_warps = 8;
  const index_t columns = rows.experts + rows.gates, d = rows.d;
  const gradient_columns across{d_columns, x.tokens, columns};
  const dim3 token_tiles(blocks_of(x.tokens, block_tile), blocks_of(d, block_tile));
  launch{"project_back", stream, token_tiles, product_threads}(project_back<product_threads>,
                                                               gradient_rows{d_columns, x.tokens, columns},
                                                               projection_columns{rows}, dx, dx_stride);
  const dim3 weight_tiles(blocks_of(columns, block_tile), blocks_of(d, block_tile),
                          static_cast<unsigned>(scratch.parts));
  launch{"projection_weight_gradient", stream, weight_tiles,
         product_threads}(projection_weight_gradient<S>, across, token_columns<S>{x}, rows.experts, scratch, gradients);
  if (scratch.parts > 1)
    launch{"add_parts", stream, dim3(blocks_of(d, adders), columns), adders}(add_parts<adders>, scratch, rows.experts,
                                                                             gradients);
  if (gradients.bias != nullptr)
    launch{"bias_gradient", stream, blocks_of(rows.experts, 32), bias_warps * 32}(bias_gradient<bias_warps>, across,
                                                                                  rows.experts, gradients.bias);
}

} // namespace hmoe::backends::cuda_detail
