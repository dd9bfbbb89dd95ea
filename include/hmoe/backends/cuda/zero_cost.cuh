// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/device_bank.hpp>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>

#include <algorithm>
#include <cstddef>

/// Experts that never reach a matrix product: identity, zero and constant (hmoe/experts/). A warp works on one slot;
/// warps walk over the slots of the bank, whose number only the device knows.
namespace hmoe::backends::cuda_detail {

inline constexpr int zero_cost_threads = 128;

[[nodiscard]] inline unsigned zero_cost_blocks(const launch_target& target, const plan_arrays& plan) {
  constexpr index_t warps = zero_cost_threads / 32;
  return static_cast<unsigned>(
      std::clamp<index_t>((plan.capacity + warps - 1) / warps, 1, static_cast<index_t>(8 * target.multiprocessors)));
}

/// f(slot, local expert, lane) for each slot of the bank.
template <class F> __device__ void for_each_slot(const plan_arrays& plan, const zero_cost_arrays& bank, const F& f) {
  const index_t end = plan.offsets[bank.first + bank.count];
  const index_t warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = gridDim.x * blockDim.x / 32;
  for (index_t slot = plan.offsets[bank.first] + warp; slot < end; slot += warps) {
    index_t e = 0;
    while (slot >= plan.offsets[bank.first + e + 1])
      ++e;
    f(slot, e, threadIdx.x % 32);
  }
}

template <class S> __device__ const S* row_of(const row_source<S>& source, index_t slot) {
  return source.rows + (source.index == nullptr ? slot : source.index[slot]) * source.stride;
}

/// outputs[slot] = expert(x[slot]); mixes[slot] = (a, b) of constant experts.
template <bank_form Form, class S>
__global__ void __launch_bounds__(zero_cost_threads)
    zero_cost_forward_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> x, float* outputs, float* mixes,
                             index_t d) {
  for_each_slot(plan, bank, [&](index_t slot, index_t e, index_t lane) {
    const S* const row = row_of(x, slot);
    float* const out = outputs + std::size_t{slot} * d;
    if constexpr (Form == bank_form::constant) {
      const float *const w = bank.mix + std::size_t{e} * 2 * d, *const v = bank.constant + std::size_t{e} * d;
      double gap = 0; // logit of b less that of a
      for (index_t i = lane; i < d; i += 32)
        gap += (static_cast<double>(w[d + i]) - static_cast<double>(w[i])) * static_cast<double>(to_float(row[i]));
      gap = warp_sum(gap);
      const auto a = static_cast<float>(1 / (1 + exp(gap))), b = static_cast<float>(1 / (1 + exp(-gap)));
      if (lane == 0) {
        mixes[std::size_t{slot} * 3] = a;
        mixes[std::size_t{slot} * 3 + 1] = b;
      }
      for (index_t i = lane; i < d; i += 32)
        out[i] = a * to_float(row[i]) + b * v[i];
    } else {
      for (index_t i = lane; i < d; i += 32)
        out[i] = Form == bank_form::identity ? to_float(row[i]) : 0.0F;
    }
  });
}

/// d_rows[slot] = ∂L/∂x; mixes[slot][2] = ∂L/∂logit of a.
template <bank_form Form, class S>
__global__ void __launch_bounds__(zero_cost_threads)
    zero_cost_backward_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> x, row_source<S> d_outputs,
                              float* mixes, float* d_rows, index_t d) {
  for_each_slot(plan, bank, [&](index_t slot, index_t e, index_t lane) {
    const S* const dy = row_of(d_outputs, slot);
    float* const out = d_rows + std::size_t{slot} * d;
    if constexpr (Form == bank_form::constant) {
      const S* const row = row_of(x, slot);
      const float *const w = bank.mix + std::size_t{e} * 2 * d, *const v = bank.constant + std::size_t{e} * d;
      float* const mix = mixes + std::size_t{slot} * 3;
      const float a = mix[0], b = mix[1];
      double difference = 0; // ∂L/∂a − ∂L/∂b
      for (index_t i = lane; i < d; i += 32)
        difference +=
            static_cast<double>(to_float(dy[i])) * (static_cast<double>(to_float(row[i])) - static_cast<double>(v[i]));
      const auto d_logit = static_cast<float>(static_cast<double>(a) * static_cast<double>(b) * warp_sum(difference));
      if (lane == 0)
        mix[2] = d_logit;
      for (index_t i = lane; i < d; i += 32)
        out[i] = a * to_float(dy[i]) + d_logit * (w[i] - w[d + i]);
    } else {
      for (index_t i = lane; i < d; i += 32)
        out[i] = Form == bank_form::identity ? to_float(dy[i]) : 0.0F;
    }
  });
}

/// Gradients of W and v: a thread sums a column over the expert's slots in order. Grid: columns × experts.
template <class S>
__global__ void __launch_bounds__(zero_cost_threads)
    constant_gradients_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> x, row_source<S> d_outputs,
                              const float* mixes, float* d_mix, float* d_constant, index_t d) {
  const index_t i = blockIdx.x * blockDim.x + threadIdx.x, e = blockIdx.y;
  if (i >= d)
    return;
  float mix_sum = 0, constant_sum = 0;
  for (index_t slot = plan.offsets[bank.first + e]; slot < plan.offsets[bank.first + e + 1]; ++slot) {
    const float* const mix = mixes + std::size_t{slot} * 3;
    constant_sum += mix[1] * to_float(row_of(d_outputs, slot)[i]);
    mix_sum += mix[2] * to_float(row_of(x, slot)[i]);
  }
  d_constant[std::size_t{e} * d + i] += constant_sum;
  d_mix[std::size_t{e} * 2 * d + i] += mix_sum;
  d_mix[std::size_t{e} * 2 * d + d + i] -= mix_sum;
}

template <bank_form Form, class S>
void zero_cost_forward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                       const zero_cost_arrays& bank, const row_source<S>& x, float* outputs, float* mixes, index_t d) {
  launch{"zero_cost_forward", stream, zero_cost_blocks(target, plan),
         zero_cost_threads}(zero_cost_forward_kernel<Form, S>, plan, bank, x, outputs, mixes, d);
}

/// gradients.in is that of W, gradients.out that of v.
template <bank_form Form, class S>
void zero_cost_backward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                        const zero_cost_arrays& bank, const row_source<S>& x, const row_source<S>& d_outputs,
                        float* mixes, float* d_rows, const ffn_gradient_arrays& gradients, index_t d) {
  launch{"zero_cost_backward", stream, zero_cost_blocks(target, plan),
         zero_cost_threads}(zero_cost_backward_kernel<Form, S>, plan, bank, x, d_outputs, mixes, d_rows, d);
  if constexpr (Form == bank_form::constant) {
    const dim3 grid((d + zero_cost_threads - 1) / zero_cost_threads, bank.count);
    launch{"constant_gradients", stream, grid, zero_cost_threads}(constant_gradients_kernel<S>, plan, bank, x,
                                                                  d_outputs, mixes, gradients.in, gradients.out, d);
  }
}

} // namespace hmoe::backends::cuda_detail
