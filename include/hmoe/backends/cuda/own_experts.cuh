// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_own.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/zero_cost.cuh>
#include <hmoe/core/vector_view.hpp>

#include <algorithm>
#include <cstddef>

/// Experts of a user: their kernels, or their functions over one row (device_expert).
namespace hmoe::backends::cuda_detail {

inline constexpr unsigned own_expert_threads = 128;

[[nodiscard]] __device__ inline vector_view<const float> weights_of(const own_expert_rows& rows, index_t e) {
  return {rows.weights + rows.weight_offsets[e], rows.weight_offsets[e + 1] - rows.weight_offsets[e]};
}

/// A thread per slot.
template <class Functions, class S>
__global__ void __launch_bounds__(own_expert_threads)
    own_forward(own_expert_rows rows, row_source<S> x, float* outputs) {
  const index_t end = rows.offsets[rows.experts], threads = gridDim.x * own_expert_threads;
  index_t e = 0; // slots ascend, and so do their experts
  for (index_t slot = rows.offsets[0] + blockIdx.x * own_expert_threads + threadIdx.x; slot < end; slot += threads) {
    while (slot >= rows.offsets[e + 1])
      ++e;
    Functions::forward(weights_of(rows, e), vector_view<const S>(row_of(x, slot), rows.d),
                       vector_view<float>(outputs + std::size_t{slot} * rows.d, rows.d));
  }
}
/// A thread per expert, so that its gradients are sums in the order of tokens.
template <class Functions, class S>
__global__ void __launch_bounds__(own_expert_threads)
    own_backward(own_expert_rows rows, row_source<S> x, row_source<S> dy, float* dx, float* d_weights) {
  const index_t e = blockIdx.x * own_expert_threads + threadIdx.x;
  if (e >= rows.experts)
    return;
  const vector_view<const float> weights = weights_of(rows, e);
  const vector_view<float> gradient(d_weights + rows.weight_offsets[e], weights.size());
  for (index_t slot = rows.offsets[e]; slot < rows.offsets[e + 1]; ++slot)
    Functions::backward(weights, vector_view<const S>(row_of(x, slot), rows.d),
                        vector_view<const S>(row_of(dy, slot), rows.d),
                        vector_view<float>(dx + std::size_t{slot} * rows.d, rows.d), gradient);
}

/// outputs[slot] = expert(x[slot])
template <class Functions, class S>
void own_experts_forward(cudaStream_t stream, const launch_target& target, const own_expert_rows& rows,
                         const row_source<S>& x, float* outputs) {
  if constexpr (requires { Functions::launch_forward(stream, rows, x, outputs); })
    Functions::launch_forward(stream, rows, x, outputs);
  else
    launch{"own_forward", stream,
           std::clamp((rows.most_slots + own_expert_threads - 1) / own_expert_threads, 1U,
                      8 * static_cast<unsigned>(target.multiprocessors)),
           own_expert_threads}(own_forward<Functions, S>, rows, x, outputs);
}
/// dx[slot] = ∂L/∂x[slot], d_weights += ∂L/∂weights
template <class Functions, class S>
void own_experts_backward(cudaStream_t stream, const own_expert_rows& rows, const row_source<S>& x,
                          const row_source<S>& dy, float* dx, float* d_weights) {
  if constexpr (requires { Functions::launch_backward(stream, rows, x, dy, dx, d_weights); })
    Functions::launch_backward(stream, rows, x, dy, dx, d_weights);
  else
    launch{"own_backward", stream, (rows.experts + own_expert_threads - 1) / own_expert_threads,
           own_expert_threads}(own_backward<Functions, S>, rows, x, dy, dx, d_weights);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
