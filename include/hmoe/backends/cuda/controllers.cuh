// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/controllers.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/loss_arrays.hpp>
#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/controllers/update_bias_in_proportion.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// What moves a router between steps, by the formulas of the host: a few hundred numbers, a block for each.
namespace hmoe::backends::cuda_detail {

/// load[e] += tokens of expert e (× flops[e], where flops is not null).
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    add_load(const index_t* tokens, const double* flops, double* load, index_t experts) {
  for (index_t e = threadIdx.x; e < experts; e += Threads)
    load[e] += flops != nullptr ? tokens[e] * flops[e] : static_cast<double>(tokens[e]);
}

template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    move_bias_by_sign(float* bias, const double* load, index_t moving, double rate) {
  const routing::detail::mean_comparison mean(vector_view<const double>(load, moving));
  for (index_t e = threadIdx.x; e < moving; e += Threads)
    bias[e] -= static_cast<float>(rate * mean.of(e));
}
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) move_bias_in_proportion(float* bias, const double* load, index_t experts,
                                                                      index_t moving, double rate, double share) {
  double sum = 0; // in the host's order, by every thread
  for (index_t e = 0; e < experts; ++e)
    sum += load[e];
  for (index_t e = threadIdx.x; e < moving && sum != 0; e += Threads)
    bias[e] += static_cast<float>(rate * (share - load[e] / sum));
}

/// The controller's next p, which the selection reads.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    move_top_p(const index_t* tokens_per_expert, index_t experts, index_t tokens, routing::top_p_controller::options by,
               routing::top_p_controller::state* state, double* p) {
  static_assert(Threads == loss_threads);
  const double chosen = block_sum_of(experts, [&](index_t e) { return static_cast<double>(tokens_per_expert[e]); });
  if (threadIdx.x != 0)
    return;
  if (tokens != 0)
    *state = routing::top_p_controller::next(by, *state, chosen / static_cast<double>(tokens));
  *p = state->p;
}

/// Adds the pairs of a batch, and those whose score is positive. Counts are whole, so their order is free.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) count_sparsity(trace_arrays trace, sparsity_state* state) {
  static_assert(Threads == loss_threads);
  const std::size_t pairs = std::size_t{trace.tokens} * trace.experts, threads = std::size_t{gridDim.x} * Threads;
  double active = 0;
  for (std::size_t i = std::size_t{blockIdx.x} * Threads + threadIdx.x; i < pairs; i += threads)
    active += trace.probabilities[i] > 0 ? 1 : 0;
  active = block_sum(active);
  if (threadIdx.x == 0)
    atomicAdd(&state->active, static_cast<unsigned long long>(active));
  if (threadIdx.x == 0 && blockIdx.x == 0)
    atomicAdd(&state->pairs, static_cast<unsigned long long>(pairs));
}
template <unsigned Threads> __global__ void move_lambda(sparsity_state* state, double wanted, double factor) {
  static_assert(Threads == 1);
  state->lambda = losses::sparsity_controller::next(state->lambda, state->active, state->pairs, wanted, factor);
  state->active = state->pairs = 0;
}

/// f_e of losses::adaptive_l1, times λ where that is on the device.
struct adaptive_l1_factor {
  const index_t* active; ///< [experts], null: all 1
  const double* lambda;  ///< null: 1
  double target_experts, scale = 1;

  __device__ void prepare(index_t tokens, index_t experts) {
    scale = active == nullptr ? 1 : static_cast<double>(experts) / (target_experts * static_cast<double>(tokens));
  }
  __device__ double operator()(index_t e) const {
    const double f = active == nullptr ? 1 : scale * static_cast<double>(active[e]);
    return lambda == nullptr ? f : *lambda * f;
  }
};

/// counts[e] += tokens whose score of e is positive; a thread has every Threads-th expert of its part of the tokens.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) count_active(trace_arrays trace, index_t* counts) {
  const index_t first = blockIdx.x * static_cast<index_t>(column_sum_tokens);
  const index_t behind = first + static_cast<index_t>(column_sum_tokens);
  const index_t last = behind < trace.tokens ? behind : trace.tokens;
  for (index_t e = threadIdx.x; e < trace.experts; e += Threads) {
    index_t count = 0;
    for (index_t t = first; t < last; ++t)
      count += trace.probabilities[std::size_t{t} * trace.experts + e] > 0 ? 1 : 0;
    atomicAdd(counts + e, count);
  }
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
