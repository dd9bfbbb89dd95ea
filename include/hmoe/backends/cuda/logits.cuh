// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/scalar_product.cuh>
#include <hmoe/core/config.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Rows of tokens: a product over d.
template <class S> struct token_rows {
  const S* x;
  std::size_t stride;
  index_t tokens, d;
  static constexpr bool k_contiguous = true;

  __device__ float operator()(index_t t, index_t c) const {
    return t < tokens && c < d ? to_float(x[t * stride + c]) : 0.0F;
  }
};

/// The rows that make logits, and behind them those that make gates of shared experts.
struct projection_rows {
  const float *weight, *shared_gate;
  index_t experts, gates, d;
  static constexpr bool k_contiguous = true;

  __device__ float operator()(index_t j, index_t c) const {
    if (c >= d || j >= experts + gates)
      return 0.0F;
    return j < experts ? weight[std::size_t{j} * d + c] : shared_gate[std::size_t{j - experts} * d + c];
  }
};

/// logits[t, j] = Σ_c x[t, c] W[j, c] (+ b[j]),  gate_logits[t, j] = Σ_c x[t, c] v[j, c]
template <class S>
__global__ void __launch_bounds__(product_threads, 2)
    project_tokens(token_rows<S> x, projection_rows rows, const float* bias, float* logits, float* gate_logits) {
  multiply_tile(x, rows, blockIdx.x * block_tile, blockIdx.y * block_tile, 0, x.d,
                [&](index_t t, index_t j, float sum) {
                  if (t >= x.tokens)
                    return;
                  if (j < rows.experts)
                    logits[std::size_t{t} * rows.experts + j] = bias == nullptr ? sum : sum + bias[j];
                  else if (j < rows.experts + rows.gates)
                    gate_logits[std::size_t{t} * rows.gates + j - rows.experts] = sum;
                });
}

[[nodiscard]] constexpr unsigned blocks_of(std::size_t count, std::size_t per_block) noexcept {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

template <class S>
void launch_projection(const token_rows<S>& x, const projection_rows& rows, const float* bias, float* logits,
                       float* gate_logits, cudaStream_t stream) {
  if (x.tokens == 0)
    return;
  const dim3 grid(blocks_of(x.tokens, block_tile), blocks_of(rows.experts + rows.gates, block_tile));
  launch{"project_tokens", stream, grid, product_threads}(project_tokens<S>, x, rows, bias, logits, gate_logits);
}

} // namespace hmoe::backends::cuda_detail
