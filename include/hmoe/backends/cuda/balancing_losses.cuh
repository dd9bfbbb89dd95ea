// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/controllers.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/parameter_penalty.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>

/// Losses of the form Σ_e factor(e) P̂_e, see losses::detail::mean_probability_loss. The factors are those of the host;
/// what is here finds their arguments.
namespace hmoe::backends::cuda_detail {

/// N f_e of losses::load_balance. A factor's `prepare` is called by the whole block.
struct load_balance_factor {
  const index_t* counts;
  losses::balance_normalization normalization;
  double experts = 0, divisor = 0;

  __device__ void prepare(index_t tokens, index_t expert_count) {
    experts = expert_count;
    const double total = block_sum_of(expert_count, [&](index_t e) { return static_cast<double>(counts[e]); });
    divisor = losses::detail::choice_divisor(normalization, tokens, total);
  }
  __device__ double operator()(index_t e) const {
    return losses::load_balance::factor(experts, static_cast<double>(counts[e]), divisor);
  }
};

/// N M_e of losses::parameter_penalty.
struct parameter_penalty_factor {
  const index_t *counts, *widths;
  losses::parameter_penalty loss;
  double experts = 0, tokens = 0, one = 1;

  __device__ void prepare(index_t token_count, index_t expert_count) {
    experts = expert_count;
    tokens = token_count;
    const double sum = block_sum_of(expert_count, [&](index_t e) { return static_cast<double>(widths[e]); });
    index_t largest = 0;
    for (index_t e = 0; e < expert_count; ++e)
      largest = widths[e] > largest ? widths[e] : largest;
    one = loss.unit_of(sum, largest, experts);
  }
  __device__ double operator()(index_t e) const {
    return losses::parameter_penalty::factor(experts, static_cast<double>(widths[e]), one,
                                             static_cast<double>(counts[e]), tokens);
  }
};

/// c_e / mean(c) of losses::compute_cost.
struct compute_cost_factor {
  const double* costs; ///< null: the widths
  const index_t* widths;
  double mean = 1;

  __device__ void prepare(index_t, index_t experts) {
    mean = block_sum_of(experts, [&](index_t e) { return cost(e); }) / experts;
  }
  __device__ double operator()(index_t e) const { return losses::compute_cost::factor(cost(e), mean); }
  __device__ double cost(index_t e) const { return costs == nullptr ? static_cast<double>(widths[e]) : costs[e]; }
};

/// *value and gradient [experts], by a single block.
template <class Factor>
__global__ void __launch_bounds__(loss_threads, 4)
    mean_probability_loss(Factor factor, index_t tokens, index_t experts, double coefficient, loss_scratch scratch,
                          double* value) {
  factor.prepare(tokens, experts);
  const double sum = block_sum_of(experts, [&](index_t e) {
    const double f = losses::detail::mean_probability_slope(factor(e), static_cast<double>(tokens));
    scratch.gradient[e] = static_cast<float>(coefficient * f);
    return f * column_sum(scratch, experts, e);
  });
  if (threadIdx.x == 0)
    *value = sum;
}
template <class Factor>
void launch_mean_probability_loss(const Factor& factor, double coefficient, const routed_batch_arrays& batch,
                                  const loss_scratch& scratch, double* value, cudaStream_t stream) {
  launch{"mean_probability_loss", stream, 1, loss_threads}(mean_probability_loss<Factor>, factor, batch.trace.tokens,
                                                           batch.trace.experts, coefficient, scratch, value);
  launch_add_to_columns(batch, scratch, stream);
}

/// counts[e] += tokens whose losses::detail::first_choice is e. Counts are whole, so the order of additions is free.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    count_first_choices(trace_arrays trace, assignment_arrays assigned, index_t* counts) {
  const index_t token = blockIdx.x * Threads + threadIdx.x;
  if (token >= trace.tokens)
    return;
  const index_t best = losses::detail::first_choice(probabilities_of(trace, token), experts_of(assigned, token));
  if (best != no_index)
    atomicAdd(counts + best, 1U);
}

inline void launch_loss(const losses::load_balance& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  const index_t* counts = batch.trace.tokens_per_expert;
  if (loss.counts == losses::balance_counts::first_choice) {
    require_cuda(cudaMemsetAsync(scratch.counts, 0, batch.trace.experts * sizeof(index_t), stream), "clearing counts");
    launch{"count_first_choices", stream, blocks_of(batch.trace.tokens, loss_threads),
           loss_threads}(count_first_choices<loss_threads>, batch.trace, batch.assigned, scratch.counts);
    counts = scratch.counts;
  }
  launch_mean_probability_loss(load_balance_factor{counts, loss.normalization}, loss.coefficient, batch, scratch, value,
                               stream);
}
inline void check_loss(const losses::parameter_penalty& loss, const routed_batch_arrays& batch) {
  loss.check(batch.trace.experts, batch.widest);
}
inline void launch_loss(const losses::parameter_penalty& loss, const routed_batch_arrays& batch,
                        const loss_scratch& scratch, double* value, cudaStream_t stream) {
  launch_mean_probability_loss(parameter_penalty_factor{batch.trace.tokens_per_expert, batch.widths, loss},
                               loss.coefficient, batch, scratch, value, stream);
}

/// Some costs as an argument, so that no copy from the host's memory is in the stream's way.
struct cost_block {
  static constexpr std::size_t size = 256;
  double costs[size];
};
template <unsigned Threads> __global__ void write_costs(cost_block block, double* costs, index_t count) {
  if (threadIdx.x < count)
    costs[threadIdx.x] = block.costs[threadIdx.x];
}

inline void check_loss(const losses::compute_cost& loss, const routed_batch_arrays& batch) {
  const std::size_t experts = batch.trace.experts;
  loss.check_costs(experts);
  double mean = loss.costs.empty() ? static_cast<double>(batch.widest) : 0; // positive, like the mean, or 0
  for (const double cost : loss.costs)
    mean += cost / static_cast<double>(experts);
  losses::compute_cost::check_mean(experts, mean);
}
inline void launch_loss(const losses::compute_cost& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  const std::size_t experts = batch.trace.experts;
  for (std::size_t first = 0; first < loss.costs.size(); first += cost_block::size) {
    cost_block block{};
    const std::size_t count = std::min(cost_block::size, experts - first);
    std::copy_n(loss.costs.begin() + static_cast<std::ptrdiff_t>(first), count, block.costs);
    launch{"write_costs", stream, 1, cost_block::size}(write_costs<cost_block::size>, block, scratch.costs + first,
                                                       static_cast<index_t>(count));
  }
  launch_mean_probability_loss(compute_cost_factor{loss.costs.empty() ? nullptr : scratch.costs, batch.widths},
                               loss.coefficient, batch, scratch, value, stream);
}

inline void check_loss(const losses::adaptive_l1& loss, const routed_batch_arrays&) {
  require(loss.target_experts > 0, "adaptive_l1: the target is ", loss.target_experts,
          " experts per token, it must be positive");
}
inline void launch_adaptive_l1(const adaptive_l1_factor& factor, bool balanced, double coefficient,
                               const routed_batch_arrays& batch, const loss_scratch& scratch, double* value,
                               cudaStream_t stream) {
  adaptive_l1_factor with = factor;
  if (balanced) {
    require_cuda(cudaMemsetAsync(scratch.counts, 0, batch.trace.experts * sizeof(index_t), stream), "clearing counts");
    launch{"count_active", stream, scratch.parts, loss_threads}(count_active<loss_threads>, batch.trace,
                                                                scratch.counts);
    with.active = scratch.counts;
  }
  launch_mean_probability_loss(with, coefficient, batch, scratch, value, stream);
}
inline void launch_loss(const losses::adaptive_l1& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  launch_adaptive_l1({nullptr, nullptr, loss.target_experts}, loss.balanced, loss.coefficient, batch, scratch, value,
                     stream);
}
inline void launch_loss(const controlled_l1& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  launch_adaptive_l1({nullptr, loss.lambda, loss.target_experts}, true, 1, batch, scratch, value, stream);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
