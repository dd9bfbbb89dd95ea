// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/loss_arrays.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// Sums that losses have in common: in double, in an order that depends on the shapes only.
namespace hmoe::backends::cuda_detail {

inline constexpr unsigned loss_threads = 256; ///< of the single block that puts an expert-wise loss together
inline constexpr unsigned loss_warps = 8;     ///< tokens of a block, where a warp has one

/// A token's probabilities and experts, as the formulas of losses take them.
[[nodiscard]] __device__ inline vector_view<const float> probabilities_of(const trace_arrays& trace, index_t token) {
  return {trace.probabilities + std::size_t{token} * trace.experts, trace.experts};
}
[[nodiscard]] __device__ inline vector_view<const index_t> experts_of(const assignment_arrays& assigned,
                                                                      index_t token) {
  const index_t first = assigned.offsets[token];
  return {assigned.experts + first, assigned.offsets[token + 1] - first};
}

/// Σ of the block's values, for every thread of it.
[[nodiscard]] __device__ inline double block_sum(double value) {
  __shared__ double sums[loss_threads];
  __syncthreads(); // an earlier sum may still be read
  sums[threadIdx.x] = value;
  for (unsigned step = loss_threads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step)
      sums[threadIdx.x] += sums[threadIdx.x + step];
  }
  __syncthreads();
  return sums[0];
}
/// Σ f(i) for i below count, by the whole block.
template <class F> [[nodiscard]] __device__ double block_sum_of(index_t count, F&& f) {
  double sum = 0;
  for (index_t i = threadIdx.x; i < count; i += loss_threads)
    sum += f(i);
  return block_sum(sum);
}

/// column_sums[part, e] = Σ p[t, e] over the part's tokens; a block has 32 columns, each of its warps every Warps-th
/// token.
template <unsigned Warps>
__global__ void __launch_bounds__(Warps * 32, 4) sum_columns(trace_arrays trace, double* column_sums) {
  __shared__ double sums[Warps][32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const index_t e = blockIdx.x * 32 + lane, first = blockIdx.y * static_cast<index_t>(column_sum_tokens);
  const index_t behind = first + static_cast<index_t>(column_sum_tokens);
  const index_t last = behind < trace.tokens ? behind : trace.tokens;
  double sum = 0;
  if (e < trace.experts)
    for (index_t t = first + warp; t < last; t += Warps)
      sum += static_cast<double>(trace.probabilities[std::size_t{t} * trace.experts + e]);
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || e >= trace.experts)
    return;
  for (unsigned w = 1; w < Warps; ++w)
    sum += sums[w][lane];
  column_sums[std::size_t{blockIdx.y} * trace.experts + e] = sum;
}
/// Σ_t p[t, e] of the parts' sums.
[[nodiscard]] __device__ inline double column_sum(const loss_scratch& scratch, index_t experts, index_t e) {
  double sum = 0;
  for (index_t part = 0; part < scratch.parts; ++part)
    sum += scratch.column_sums[std::size_t{part} * experts + e];
  return sum;
}

/// d_p[t, e] += gradient[e]
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) add_to_columns(trace_arrays trace, const float* gradient) {
  const index_t token = blockIdx.x * (Threads / 32) + threadIdx.x / 32; // a warp for each
  if (token >= trace.tokens)
    return;
  float* const row = trace.d_probabilities + std::size_t{token} * trace.experts;
  for (index_t e = threadIdx.x % 32; e < trace.experts; e += 32)
    row[e] += gradient[e];
}

/// *value = Σ rows[t]
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) sum_rows(const double* rows, index_t tokens, double* value) {
  static_assert(Threads == loss_threads);
  const double sum = block_sum_of(tokens, [&](index_t t) { return rows[t]; });
  if (threadIdx.x == 0)
    *value = sum;
}

inline void launch_column_sums(const routed_batch_arrays& batch, const loss_scratch& scratch, cudaStream_t stream) {
  constexpr unsigned warps = 8;
  launch{"sum_columns", stream, dim3(blocks_of(batch.trace.experts, 32), scratch.parts),
         warps * 32}(sum_columns<warps>, batch.trace, scratch.column_sums);
}
inline void launch_add_to_columns(const routed_batch_arrays& batch, const loss_scratch& scratch, cudaStream_t stream) {
  launch{"add_to_columns", stream, blocks_of(batch.trace.tokens, loss_threads / 32),
         loss_threads}(add_to_columns<loss_threads>, batch.trace, scratch.gradient);
}
inline void launch_sum_rows(const routed_batch_arrays& batch, const loss_scratch& scratch, double* value,
                            cudaStream_t stream) {
  launch{"sum_rows", stream, 1, loss_threads}(sum_rows<loss_threads>, scratch.rows, batch.trace.tokens, value);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
