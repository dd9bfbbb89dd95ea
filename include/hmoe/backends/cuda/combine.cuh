// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

inline constexpr unsigned combine_threads = 128;

/// A block for each token; a thread has every combine_threads-th column and adds up its entries in order.
template <class Out>
__global__ void __launch_bounds__(combine_threads)
    combine_rows(assignment_arrays assigned, const index_t* slots, const float* rows, const float* weights,
                 const float* base, std::size_t base_stride, Out* y, std::size_t y_stride, index_t d) {
  const std::size_t t = blockIdx.x;
  const index_t first = assigned.offsets[t], last = assigned.offsets[t + 1];
  for (index_t c = threadIdx.x; c < d; c += combine_threads) {
    float sum = base != nullptr ? base[t * base_stride + c] : 0.0F;
    for (index_t a = first; a < last; ++a)
      if (const index_t slot = slots[a]; slot != no_index)
        sum = fmaf(weights != nullptr ? weights[a] : 1.0F, rows[static_cast<std::size_t>(slot) * d + c], sum);
    y[t * y_stride + c] = static_cast<Out>(sum);
  }
}

/// A warp for each slot. Lane l adds up terms l, l + 32, …, then lanes are added in pairs: the order depends on d only.
template <class S>
__global__ void __launch_bounds__(combine_threads)
    weigh_slots(plan_arrays plan, expert_range experts, const float* weights, const S* from, std::size_t from_stride,
                S* scaled, const float* rows, float* dots, index_t d) {
  const index_t lane = threadIdx.x % 32,
                slot = plan.offsets[experts.first] + (blockIdx.x * combine_threads + threadIdx.x) / 32;
  if (slot >= plan.offsets[experts.first + experts.count])
    return;
  const index_t token = plan.tokens[slot], entry = plan.entries[slot];
  if (token == no_index) {
    for (index_t c = lane; c < d && scaled != nullptr; c += 32)
      scaled[static_cast<std::size_t>(slot) * d + c] = S{};
    return;
  }
  const float weight = scaled != nullptr ? weights[entry] : 0.0F;
  float sum = 0;
  for (index_t c = lane; c < d; c += 32) {
    const float value = to_float(from[token * from_stride + c]);
    const std::size_t at = static_cast<std::size_t>(slot) * d + c;
    if (scaled != nullptr)
      scaled[at] = static_cast<S>(weight * value);
    if (dots != nullptr)
      sum = fmaf(value, rows[at], sum);
  }
  if (dots == nullptr)
    return;
  sum = warp_sum(sum);
  if (lane == 0)
    dots[entry] = sum;
}

template <class Out>
void combine(cudaStream_t stream, const assignment_arrays& assigned, const index_t* slots, const float* rows,
             const float* weights, const float* base, std::size_t base_stride, Out* y, std::size_t y_stride,
             index_t d) {
  if (assigned.tokens == 0)
    return;
  launch{"combine_rows", stream, assigned.tokens, combine_threads}(combine_rows<Out>, assigned, slots, rows, weights,
                                                                   base, base_stride, y, y_stride, d);
}

template <class S>
void weigh_rows(cudaStream_t stream, const plan_arrays& plan, const expert_range& experts, const float* weights,
                const S* from, std::size_t from_stride, S* scaled, const float* rows, float* dots, index_t d) {
  constexpr index_t slots_per_block = combine_threads / 32;
  if (plan.capacity == 0)
    return;
  launch{"weigh_slots", stream, (plan.capacity + slots_per_block - 1) / slots_per_block,
         combine_threads}(weigh_slots<S>, plan, experts, weights, from, from_stride, scaled, rows, dots, d);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
