// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>

#include <cuda_runtime_api.h>

#include <cfloat>
#include <cstddef>

/// Losses that are a mean over tokens: a warp per token, then the sum of their values.
namespace hmoe::backends::cuda_detail {

template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 4)
    router_entropy_of_tokens(trace_arrays trace, double coefficient, double* rows) {
  const index_t token = blockIdx.x * Warps + threadIdx.x / 32;
  if (token >= trace.tokens)
    return;
  const auto tokens = static_cast<double>(trace.tokens);
  const std::size_t row = std::size_t{token} * trace.experts;
  double value = 0;
  for (index_t e = lane_id(); e < trace.experts; e += 32) {
    const auto p = static_cast<double>(trace.probabilities[row + e]);
    const double log_p = log(p < double{FLT_MIN} ? double{FLT_MIN} : p); // NaN stays
    value -= p * log_p / tokens;
    trace.d_probabilities[row + e] += static_cast<float>(-coefficient * (log_p + 1) / tokens);
  }
  value = warp_sum(value);
  if (lane_id() == 0)
    rows[token] = value;
}

template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 4) z_of_tokens(trace_arrays trace, double coefficient, double* rows) {
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
    sum += exp(static_cast<double>(z[e]) - static_cast<double>(largest));
  const double log_sum = static_cast<double>(largest) + log(warp_sum(sum));
  for (index_t e = lane_id(); e < trace.experts; e += 32)
    trace.d_logits[std::size_t{token} * trace.experts + e] +=
        static_cast<float>(coefficient * 2 / tokens * log_sum * exp(static_cast<double>(z[e]) - log_sum));
  if (lane_id() == 0)
    rows[token] = log_sum * log_sum / tokens;
}

inline void launch_loss(const losses::router_entropy& loss, const record_arrays& record, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  router_entropy_of_tokens<loss_warps><<<blocks_of(record.trace.tokens, loss_warps), loss_warps * 32, 0, stream>>>(
      record.trace, loss.coefficient, scratch.rows);
  require_launched("router_entropy_of_tokens");
  launch_sum_rows(record, scratch, value, stream);
}
inline void launch_loss(const losses::z& loss, const record_arrays& record, const loss_scratch& scratch, double* value,
                        cudaStream_t stream) {
  z_of_tokens<loss_warps><<<blocks_of(record.trace.tokens, loss_warps), loss_warps * 32, 0, stream>>>(
      record.trace, loss.coefficient, scratch.rows);
  require_launched("z_of_tokens");
  launch_sum_rows(record, scratch, value, stream);
}

} // namespace hmoe::backends::cuda_detail
