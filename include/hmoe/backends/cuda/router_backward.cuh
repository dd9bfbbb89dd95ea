// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/projection_backward.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>
#include <hmoe/core/vector_view.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// routing::router::backward on the device: from the weights of the entries back to logits, and from them to tokens and
/// parameters.
namespace hmoe::backends::cuda_detail {

/// What a router's backward pass has in its workspace.
struct router_backward_scratch {
  float* d_columns;       ///< [tokens × (experts + gates)] ∂L/∂logits, and behind them ∂L/∂(gate logits)
  float* d_probabilities; ///< [tokens × experts]
  projection_scratch projection;
  std::size_t bytes;
};
template <class View>
[[nodiscard]] router_backward_scratch carve_router_backward(const View& router, std::size_t tokens, std::byte* block) {
  const std::size_t columns = projection_columns_of(router);
  carver memory(block);
  router_backward_scratch result{};
  result.d_columns = memory.take<float>(tokens * columns);
  result.d_probabilities = memory.take<float>(tokens * router.experts);
  result.projection = projection_scratch::sized(tokens, columns, router.d);
  result.projection.partials = memory.take<float>(projection_scratch::values(tokens, columns, router.d));
  result.bytes = memory.used();
  return result;
}

inline constexpr unsigned score_backward_warps = 4;
inline constexpr unsigned weights_backward_threads = 128;

/// A warp per token: gradients begin with what losses left in the sinks.
template <class View>
__global__ void __launch_bounds__(score_backward_warps * 32, 8)
    read_sinks(View router, trace_arrays trace, float* d_columns, index_t columns, float* d_probabilities) {
  const index_t token = blockIdx.x * score_backward_warps + threadIdx.x / 32;
  if (token >= trace.tokens)
    return;
  const std::size_t row = std::size_t{token} * router.experts;
  for (index_t e = lane_id(); e < columns; e += 32) {
    d_columns[std::size_t{token} * columns + e] =
        e < router.experts && trace.d_logits != nullptr ? trace.d_logits[row + e] : 0.0F;
    if (e < router.experts)
      d_probabilities[row + e] = trace.d_probabilities != nullptr ? trace.d_probabilities[row + e] : 0.0F;
  }
}

/// A thread per token: the weighting's own backward, and σ'(gate logit) of the shared experts.
template <class View>
__global__ void __launch_bounds__(weights_backward_threads, 8)
    weights_backward(View router, trace_arrays trace, assignment_arrays assigned, const float* d_weights,
                     float* d_columns, index_t columns, float* d_probabilities) {
  const index_t token = blockIdx.x * weights_backward_threads + threadIdx.x, experts = router.experts;
  if (token >= trace.tokens)
    return;
  const index_t first = assigned.offsets[token], end = assigned.offsets[token + 1];
  if (first == end) // none chosen, or cut
    return;
  const index_t count = end - first - router.shared;
  const std::size_t row = std::size_t{token} * experts;
  float* d_row = d_columns + std::size_t{token} * columns;
  if (count != 0)
    router.weighting.backward(vector_view<const float>(trace.logits + row, experts),
                              vector_view<const float>(trace.probabilities + row, experts),
                              vector_view<const index_t>(assigned.experts + first, count),
                              vector_view<const float>(assigned.weights + first, count),
                              vector_view<const float>(d_weights + first, count), vector_view<float>(d_row, experts),
                              vector_view<float>(d_probabilities + row, experts));
  for (index_t j = 0; j + experts < columns; ++j) {
    const float w = assigned.weights[first + count + j];
    d_row[experts + j] = d_weights[first + count + j] * w * (1.0F - w);
  }
}

/// From ∂L/∂probabilities to ∂L/∂logits: a warp per token, all of it or (where the function needs a whole row) one
/// lane.
template <class View>
__global__ void __launch_bounds__(score_backward_warps * 32, 8)
    score_backward(View router, trace_arrays trace, float* d_columns, index_t columns, const float* d_probabilities) {
  const index_t token = blockIdx.x * score_backward_warps + threadIdx.x / 32, experts = router.experts;
  if (token >= trace.tokens)
    return;
  const std::size_t row = std::size_t{token} * experts;
  const float *z = trace.logits + row, *p = trace.probabilities + row, *d_p = d_probabilities + row;
  float* d_z = d_columns + std::size_t{token} * columns;
  if constexpr (scores_by_warp<decltype(View::function)>)
    warp_score_backward(router.function, z, p, d_p, d_z, experts);
  else if (lane_id() == 0)
    router.function.backward(vector_view<const float>(z, experts), vector_view<const float>(p, experts),
                             vector_view<const float>(d_p, experts), vector_view<float>(d_z, experts));
}

/// Device memory that router_backward uses while it runs, aligned to 256 bytes.
template <class View> [[nodiscard]] std::size_t router_backward_bytes(const View& router, std::size_t tokens) {
  return carve_router_backward(router, tokens, nullptr).bytes;
}

/// From d_weights [entries of the assignment] = ∂L/∂weights and the trace's sinks (null: zero):
///   dx [tokens × d] += ∂L/∂x, rows dx_stride apart, in float;  gradients += ∂L/∂parameters
/// The sinks stay as they are.
template <class S, class View>
void router_backward(const View& router, const S* x, std::size_t x_stride, const trace_arrays& trace,
                     const assignment_arrays& assigned, const float* d_weights, float* dx, std::size_t dx_stride,
                     const router_gradient_arrays& gradients, std::byte* workspace, cudaStream_t stream) {
  if (trace.tokens == 0)
    return;
  const router_backward_scratch scratch = carve_router_backward(router, trace.tokens, workspace);
  const projection_rows rows = projection_of(router);
  const auto columns = static_cast<index_t>(rows.count);
  const unsigned warp_blocks = blocks_of(trace.tokens, score_backward_warps);
  launch{"read_sinks", stream, warp_blocks, score_backward_warps * 32}(
      read_sinks<View>, router, trace, scratch.d_columns, columns, scratch.d_probabilities);
  launch{"weights_backward", stream, blocks_of(trace.tokens, weights_backward_threads), weights_backward_threads}(
      weights_backward<View>, router, trace, assigned, d_weights, scratch.d_columns, columns, scratch.d_probabilities);
  launch{"score_backward", stream, warp_blocks, score_backward_warps * 32}(
      score_backward<View>, router, trace, scratch.d_columns, columns, scratch.d_probabilities);
  launch_projection_backward(token_rows(x, x_stride, trace.tokens, router.d), rows, scratch.d_columns,
                             scratch.projection, dx, dx_stride, gradients, stream);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
