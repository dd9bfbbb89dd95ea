// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>
#include <hmoe/losses/of_tokens.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <type_traits>

/// Losses that are a mean over tokens, by the host's formulas: a warp per token, then the sum of their values.
namespace hmoe::backends::cuda_detail {

template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 4)
    router_entropy_of_tokens(trace_arrays trace, losses::router_entropy loss, double* rows) {
  const index_t token = blockIdx.x * Warps + threadIdx.x / 32;
  if (token >= trace.tokens)
    return;
  const auto tokens = static_cast<double>(trace.tokens);
  const std::size_t row = std::size_t{token} * trace.experts;
  double value = 0;
  for (index_t e = lane_id(); e < trace.experts; e += 32) {
    const auto of = loss.share_of(trace.probabilities[row + e], tokens);
    value += of.value;
    trace.d_probabilities[row + e] += static_cast<float>(of.gradient);
  }
  value = warp_sum(value);
  if (lane_id() == 0)
    rows[token] = value;
}

template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 4) z_of_tokens(trace_arrays trace, losses::z loss, double* rows) {
  const index_t token = blockIdx.x * Warps + threadIdx.x / 32;
  if (token >= trace.tokens)
    return;
  const auto tokens = static_cast<double>(trace.tokens);
  const float* z = trace.logits + std::size_t{token} * trace.experts;
  float largest = z[0];
  for (index_t e = lane_id(); e < trace.experts; e += 32)
    largest = z[e] > largest ? z[e] : largest;
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(whole_warp, largest, step);
    largest = other > largest ? other : largest;
  }
  double sum = 0;
  for (index_t e = lane_id(); e < trace.experts; e += 32)
    sum += losses::z::summand(static_cast<double>(z[e]), static_cast<double>(largest));
  const double log_sum = losses::z::log_sum(static_cast<double>(largest), warp_sum(sum));
  for (index_t e = lane_id(); e < trace.experts; e += 32)
    trace.d_logits[std::size_t{token} * trace.experts + e] +=
        static_cast<float>(loss.gradient_of(static_cast<double>(z[e]), log_sum, tokens));
  if (lane_id() == 0)
    rows[token] = losses::z::share_of(log_sum, tokens);
}

inline void launch_loss(const losses::router_entropy& loss, const routed_batch_arrays& batch,
                        const loss_scratch& scratch, double* value, cudaStream_t stream) {
  launch{"router_entropy_of_tokens", stream, blocks_of(batch.trace.tokens, loss_warps),
         loss_warps * 32}(router_entropy_of_tokens<loss_warps>, batch.trace, loss, scratch.rows);
  launch_sum_rows(batch, scratch, value, stream);
}
inline void launch_loss(const losses::z& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  launch{"z_of_tokens", stream, blocks_of(batch.trace.tokens, loss_warps),
         loss_warps * 32}(z_of_tokens<loss_warps>, batch.trace, loss, scratch.rows);
  launch_sum_rows(batch, scratch, value, stream);
}

/// A thread per token.
template <unsigned Threads, class F>
__global__ void __launch_bounds__(Threads, 4)
    loss_of_tokens(trace_arrays trace, assignment_arrays assigned, F function, double coefficient, double* rows) {
  const index_t token = blockIdx.x * Threads + threadIdx.x;
  if (token >= trace.tokens)
    return;
  const std::size_t row = std::size_t{token} * trace.experts;
  const auto tokens = static_cast<double>(trace.tokens);
  rows[token] = function(vector_view<const float>(trace.logits + row, trace.experts), probabilities_of(trace, token),
                         experts_of(assigned, token), coefficient / tokens,
                         vector_view<float>(trace.d_logits + row, trace.experts),
                         vector_view<float>(trace.d_probabilities + row, trace.experts)) /
                tokens;
}
template <class F>
void launch_loss(const losses::of_tokens<F>& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                 double* value, cudaStream_t stream) {
  static_assert(std::is_trivially_copyable_v<F>,
                "hmoe::backends::cuda: the function of losses::of_tokens is not trivially copyable, so it cannot be an "
                "argument of a kernel: keep plain values in it, and mark its operator() HMOE_HOST_DEVICE");
  launch{"loss_of_tokens", stream, blocks_of(batch.trace.tokens, loss_threads), loss_threads}(
      loss_of_tokens<loss_threads, F>, batch.trace, batch.assigned, loss.function, loss.coefficient, scratch.rows);
  launch_sum_rows(batch, scratch, value, stream);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
