// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/losses/gates.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/squared_variation.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// losses::importance, by the host's formulas: gates are summed over the tokens of an expert, which the plan has in
/// ascending order.
namespace hmoe::backends::cuda_detail {

/// rows[t] = losses::detail::gate_divisor of the token.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    gate_divisors(trace_arrays trace, assignment_arrays assigned, losses::gate_values kind, double* rows) {
  const index_t token = blockIdx.x * Threads + threadIdx.x;
  if (token >= trace.tokens)
    return;
  rows[token] = losses::detail::gate_divisor(kind, probabilities_of(trace, token), experts_of(assigned, token));
}

/// sums[e] = Σ of the gates of expert e = blockIdx.x
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    sum_gates(trace_arrays trace, plan_arrays plan, const double* divisors, double* sums) {
  static_assert(Threads == loss_threads);
  const index_t e = blockIdx.x, first = plan.offsets[e];
  const double sum = block_sum_of(plan.offsets[e + 1] - first, [&](index_t i) {
    const index_t token = plan.tokens[first + i];
    return losses::detail::gate_of(static_cast<double>(trace.probabilities[std::size_t{token} * trace.experts + e]),
                                   divisors[token]);
  });
  if (threadIdx.x == 0)
    sums[e] = sum;
}

/// losses::detail::squared_variation of the sums, which become coefficient × its slopes; also in `gradient`.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    squared_variation(loss_scratch scratch, index_t experts, bool of_columns, double coefficient, double* value) {
  static_assert(Threads == loss_threads);
  if (of_columns)
    for (index_t e = threadIdx.x; e < experts; e += Threads)
      scratch.sums[e] = column_sum(scratch, experts, e);
  const double n = experts, mean = block_sum_of(experts, [&](index_t e) { return scratch.sums[e]; }) / n;
  const double squares = block_sum_of(experts, [&](index_t e) {
    const double difference = scratch.sums[e] - mean;
    return difference * difference;
  });
  const losses::detail::variation of{n, mean, squares};
  for (index_t e = threadIdx.x; e < experts; e += Threads) {
    const double slope = coefficient * of.slope(scratch.sums[e]);
    scratch.sums[e] = slope;
    scratch.gradient[e] = static_cast<float>(slope);
  }
  if (threadIdx.x == 0)
    *value = of.value();
}

/// losses::detail::add_selected_gates_gradient, a thread per token.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    add_gates_gradient(trace_arrays trace, assignment_arrays assigned, losses::gate_values kind, loss_scratch scratch) {
  const index_t token = blockIdx.x * Threads + threadIdx.x;
  if (token >= trace.tokens)
    return;
  losses::detail::add_selected_gates_gradient(
      kind, scratch.rows[token], probabilities_of(trace, token), experts_of(assigned, token),
      vector_view<const double>(scratch.sums, trace.experts),
      vector_view<float>(trace.d_probabilities + std::size_t{token} * trace.experts, trace.experts));
}

inline void launch_loss(const losses::importance& loss, const routed_batch_arrays& batch, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  const bool all = loss.gates == losses::gate_values::probabilities;
  const unsigned token_blocks = blocks_of(batch.trace.tokens, loss_threads);
  if (!all) {
    launch{"gate_divisors", stream, token_blocks, loss_threads}(gate_divisors<loss_threads>, batch.trace,
                                                                batch.assigned, loss.gates, scratch.rows);
    launch{"sum_gates", stream, batch.trace.experts, loss_threads}(sum_gates<loss_threads>, batch.trace, batch.plan,
                                                                   scratch.rows, scratch.sums);
  }
  launch{"squared_variation", stream, 1, loss_threads}(squared_variation<loss_threads>, scratch, batch.trace.experts,
                                                       all, loss.coefficient, value);
  if (all) {
    launch_add_to_columns(batch, scratch, stream);
    return;
  }
  launch{"add_gates_gradient", stream, token_blocks, loss_threads}(add_gates_gradient<loss_threads>, batch.trace,
                                                                   batch.assigned, loss.gates, scratch);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
