// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/device_bank.hpp>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/operand.cuh>
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
  index_t e = 0; // slots ascend, and so do their experts
  for (index_t slot = plan.offsets[bank.first] + warp; slot < end; slot += warps) {
    while (slot >= plan.offsets[bank.first + e + 1])
      ++e;
    f(slot, e, threadIdx.x % 32);
  }
}

/// outputs[slot] = expert(x[slot]), a piece of the columns; mixes[slot] = (a, b) of constant experts, which the first
/// piece computes.
template <bank_form Form, class S>
__global__ void __launch_bounds__(zero_cost_threads)
    zero_cost_forward_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> x, float* outputs, float* mixes,
                             column_range columns, index_t d) {
  for_each_slot(plan, bank, [&](index_t slot, index_t e, index_t lane) {
    const S* const row = row_of(x, slot);
    float* const out = outputs + std::size_t{slot} * columns.count;
    if constexpr (Form == bank_form::constant) {
      const float *const w = bank.mix + std::size_t{e} * 2 * d, *const v = bank.constant + std::size_t{e} * d;
      float* const mix = mixes + std::size_t{slot} * 3;
      if (columns.first == 0) {
        double gap = 0; // logit of b less that of a
        for (index_t i = lane; i < d; i += 32)
          gap += (static_cast<double>(w[d + i]) - static_cast<double>(w[i])) * static_cast<double>(to_float(row[i]));
        gap = warp_sum(gap);
        if (lane == 0) {
          mix[0] = static_cast<float>(1 / (1 + exp(gap)));
          mix[1] = static_cast<float>(1 / (1 + exp(-gap)));
        }
        __syncwarp();
      }
      const float a = mix[0], b = mix[1];
      for (index_t i = lane; i < columns.count; i += 32)
        out[i] = a * to_float(row[columns.first + i]) + b * v[columns.first + i];
    } else {
      for (index_t i = lane; i < columns.count; i += 32)
        out[i] = Form == bank_form::identity ? to_float(row[columns.first + i]) : 0.0F;
    }
  });
}

/// d_weights[entry] = ⟨dy, expert(x)⟩ where it is not null; mixes[slot][2] = ∂L/∂logit of a.
template <bank_form Form, class S>
__global__ void __launch_bounds__(zero_cost_threads)
    zero_cost_weights_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> x, row_source<S> dy,
                             slot_weights weights, float* mixes, float* d_weights, index_t d) {
  for_each_slot(plan, bank, [&](index_t slot, index_t e, index_t lane) {
    const S *const from = row_of(dy, slot), *const row = row_of(x, slot);
    double along = 0;
    if constexpr (Form != bank_form::zero) {
      for (index_t i = lane; i < d; i += 32)
        along += static_cast<double>(to_float(from[i])) * static_cast<double>(to_float(row[i]));
      along = warp_sum(along); // ⟨dy, x⟩
    }
    if constexpr (Form == bank_form::constant) {
      const float* const v = bank.constant + std::size_t{e} * d;
      double to_v = 0;
      for (index_t i = lane; i < d; i += 32)
        to_v += static_cast<double>(to_float(from[i])) * static_cast<double>(v[i]);
      to_v = warp_sum(to_v);
      float* const mix = mixes + std::size_t{slot} * 3;
      const auto a = static_cast<double>(mix[0]), b = static_cast<double>(mix[1]);
      if (lane == 0)
        mix[2] = static_cast<float>(static_cast<double>(weights.of(slot)) * a * b * (along - to_v));
      along = a * along + b * to_v;
    }
    if (d_weights != nullptr && lane == 0)
      d_weights[plan.entries[slot]] = static_cast<float>(along);
  });
}

/// d_rows[slot] = ∂L/∂x, a piece of the columns.
template <bank_form Form, class S>
__global__ void __launch_bounds__(zero_cost_threads)
    zero_cost_rows_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> dy, slot_weights weights,
                          const float* mixes, float* d_rows, column_range columns, index_t d) {
  for_each_slot(plan, bank, [&](index_t slot, index_t e, index_t lane) {
    const S* const from = row_of(dy, slot) + columns.first;
    const float weight = weights.of(slot);
    float* const out = d_rows + std::size_t{slot} * columns.count;
    if constexpr (Form == bank_form::constant) {
      const float* const w = bank.mix + std::size_t{e} * 2 * d + columns.first;
      const float a = mixes[std::size_t{slot} * 3], d_logit = mixes[std::size_t{slot} * 3 + 2];
      for (index_t i = lane; i < columns.count; i += 32)
        out[i] = a * (weight * to_float(from[i])) + d_logit * (w[i] - w[d + i]);
    } else {
      for (index_t i = lane; i < columns.count; i += 32)
        out[i] = Form == bank_form::identity ? weight * to_float(from[i]) : 0.0F;
    }
  });
}

/// Gradients of W and v: a thread sums a column over the expert's slots in order. Grid: columns × experts.
template <class S>
__global__ void __launch_bounds__(zero_cost_threads)
    constant_gradients_kernel(plan_arrays plan, zero_cost_arrays bank, row_source<S> x, row_source<S> d_outputs,
                              slot_weights weights, const float* mixes, float* d_mix, float* d_constant, index_t d) {
  const index_t i = blockIdx.x * blockDim.x + threadIdx.x, e = blockIdx.y;
  if (i >= d)
    return;
  float mix_sum = 0, constant_sum = 0;
  for (index_t slot = plan.offsets[bank.first + e]; slot < plan.offsets[bank.first + e + 1]; ++slot) {
    const float* const mix = mixes + std::size_t{slot} * 3;
    constant_sum += mix[1] * (weights.of(slot) * to_float(row_of(d_outputs, slot)[i]));
    mix_sum += mix[2] * to_float(row_of(x, slot)[i]);
  }
  d_constant[std::size_t{e} * d + i] += constant_sum;
  d_mix[std::size_t{e} * 2 * d + i] += mix_sum;
  d_mix[std::size_t{e} * 2 * d + d + i] -= mix_sum;
}

template <bank_form Form, class S>
void zero_cost_forward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                       const zero_cost_arrays& bank, const row_source<S>& x, float* outputs, float* mixes,
                       const column_range& columns, index_t d) {
  launch{"zero_cost_forward", stream, zero_cost_blocks(target, plan),
         zero_cost_threads}(zero_cost_forward_kernel<Form, S>, plan, bank, x, outputs, mixes, columns, d);
}

/// dy: ∂L/∂(weight · expert(x)). d_weights may be null. gradients.in is that of W, gradients.out that of v.
template <bank_form Form, class S>
void zero_cost_backward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                        const zero_cost_arrays& bank, const row_source<S>& x, const row_source<S>& dy,
                        const slot_weights& weights, float* mixes, float* d_weights,
                        const ffn_gradient_arrays& gradients, index_t d) {
  if (d_weights != nullptr || Form == bank_form::constant)
    launch{"zero_cost_weights", stream, zero_cost_blocks(target, plan),
           zero_cost_threads}(zero_cost_weights_kernel<Form, S>, plan, bank, x, dy, weights, mixes, d_weights, d);
  if constexpr (Form == bank_form::constant) {
    const dim3 grid((d + zero_cost_threads - 1) / zero_cost_threads, bank.count);
    launch{"constant_gradients", stream, grid, zero_cost_threads}(constant_gradients_kernel<S>, plan, bank, x, dy,
                                                                  weights, mixes, gradients.in, gradients.out, d);
  }
}

/// After zero_cost_backward.
template <bank_form Form, class S>
void zero_cost_backward_rows(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                             const zero_cost_arrays& bank, const row_source<S>& dy, const slot_weights& weights,
                             const float* mixes, float* d_rows, const column_range& columns, index_t d) {
  launch{"zero_cost_rows", stream, zero_cost_blocks(target, plan),
         zero_cost_threads}(zero_cost_rows_kernel<Form, S>, plan, bank, dy, weights, mixes, d_rows, columns, d);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
