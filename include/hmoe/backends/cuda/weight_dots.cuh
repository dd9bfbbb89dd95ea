// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/backends/cuda/schedule.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>

#include <algorithm>
#include <cstddef>

/// Gradients of the gate weights of two-layer experts.
namespace hmoe::backends::cuda_detail {

inline constexpr unsigned dot_threads = 128;

/// d_weights[entry] = Σ of the partial sums of ⟨dy W_out, activated⟩ + ⟨dy, b_out⟩ (+ ⟨dy, x⟩ where the expert is
/// residual) for the slots of a bank. A warp for each slot; lane l has partial sums and columns l, l + 32, …
template <class S>
__global__ void __launch_bounds__(dot_threads)
    add_dot_parts(bank_rows bank, ffn_backward_arrays<S> pass, const float* out_bias, bool residual, index_t d) {
  const index_t end = bank.offsets[bank.experts], lane = threadIdx.x % 32;
  const index_t warp = (blockIdx.x * dot_threads + threadIdx.x) / 32, warps = gridDim.x * dot_threads / 32;
  for (index_t slot = bank.offsets[0] + warp; slot < end; slot += warps) {
    const index_t i = last_start_by_warp(bank.offsets, bank.experts, slot);
    const float* const parts = pass.dots + slot * dot_parts(pass.hidden_stride);
    float sum = 0;
    for (index_t part = lane; part * dot_columns < bank.width(i); part += 32)
      sum += parts[part];
    if (out_bias != nullptr || residual) {
      const S *const dy = row_of(pass.dy, slot), *const x = residual ? row_of(pass.x, slot) : nullptr;
      const float* const bias = out_bias != nullptr ? out_bias + std::size_t{i} * d : nullptr;
      for (index_t c = lane; c < d; c += 32) {
        const float more = (bias != nullptr ? bias[c] : 0.0F) + (x != nullptr ? to_float(x[c]) : 0.0F);
        sum = fmaf(to_float(dy[c]), more, sum);
      }
    }
    sum = warp_sum(sum);
    if (lane == 0)
      pass.d_weights[pass.weights.entries[slot]] = sum;
  }
}

/// `capacity`: slots that the plan has room for, a bound for the host.
template <class S>
void add_dots(cudaStream_t stream, const launch_target& target, const bank_rows& bank, index_t capacity,
              const ffn_backward_arrays<S>& pass, const float* out_bias, bool residual, index_t d) {
  constexpr index_t warps = dot_threads / 32;
  const index_t blocks =
      std::clamp<index_t>((capacity + warps - 1) / warps, 1, static_cast<index_t>(8 * target.multiprocessors));
  launch{"add_dot_parts", stream, blocks, dot_threads}(add_dot_parts<S>, bank, pass, out_bias, residual, d);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
