// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/warp_selection.cuh>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>

#include <cuda_runtime_api.h>

/// Score functions by a warp over one token's row. Sums run over each lane's experts in ascending order, then over
/// pairs of lanes 16, 8, 4, 2 and 1 apart: the same for every token.
namespace hmoe::backends::cuda_detail {

[[nodiscard]] __device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2)
    value += __shfl_xor_sync(whole_warp, value, step);
  return value;
}
[[nodiscard]] __device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2)
    value += __shfl_xor_sync(whole_warp, value, step);
  return value;
}

/// Whether a score function looks at one logit at a time, so that lanes can run it as it is on their own.
template <class Function> inline constexpr bool is_elementwise = false;
template <> inline constexpr bool is_elementwise<routing::sigmoid> = true;
template <> inline constexpr bool is_elementwise<routing::sqrt_softplus> = true;
template <> inline constexpr bool is_elementwise<routing::relu> = true;
template <> inline constexpr bool is_elementwise<routing::unscored> = true;

template <class Function> inline constexpr bool scores_by_warp = is_elementwise<Function>;
template <> inline constexpr bool scores_by_warp<routing::softmax> = true;

/// Turns a row of logits into probabilities in place.
template <class Function> __device__ void warp_score(const Function& function, const warp_row& row) {
  static_assert(is_elementwise<Function>);
  for (unsigned e = lane_id(); e < row.size; e += 32) {
    const float z = row.values[e];
    function.forward(vector_view<const float>(&z, 1), vector_view<float>(row.values + e, 1));
  }
}
__device__ inline void warp_score(const routing::softmax&, const warp_row& row) {
  float largest = -__int_as_float(0x7f800000), sum = 0;
  for (unsigned e = lane_id(); e < row.size; e += 32)
    largest = row.values[e] > largest ? row.values[e] : largest; // NaN is not larger; it shows in the sum
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(whole_warp, largest, step);
    largest = other > largest ? other : largest;
  }
  for (unsigned e = lane_id(); e < row.size; e += 32)
    sum += row.values[e] = expf(row.values[e] - largest);
  sum = warp_sum(sum);
  for (unsigned e = lane_id(); e < row.size; e += 32)
    row.values[e] /= sum;
}

/// d_z[N] += what the function's backward adds, given p and ∂L/∂p.
template <class Function>
__device__ void warp_score_backward(const Function& function, const float* z, const float* p, const float* d_p,
                                    float* d_z, unsigned size) {
  static_assert(is_elementwise<Function>);
  for (unsigned e = lane_id(); e < size; e += 32)
    function.backward(vector_view<const float>(z + e, 1), vector_view<const float>(p + e, 1),
                      vector_view<const float>(d_p + e, 1), vector_view<float>(d_z + e, 1));
}
__device__ inline void warp_score_backward(const routing::softmax&, const float*, const float* p, const float* d_p,
                                           float* d_z, unsigned size) {
  float dot = 0;
  for (unsigned e = lane_id(); e < size; e += 32)
    dot += d_p[e] * p[e];
  dot = warp_sum(dot);
  for (unsigned e = lane_id(); e < size; e += 32)
    d_z[e] += p[e] * (d_p[e] - dot);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
