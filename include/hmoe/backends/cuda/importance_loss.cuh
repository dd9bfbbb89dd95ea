// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/losses/importance.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// losses::importance: gates are summed over the tokens of an expert, which the plan has in ascending order.
namespace hmoe::backends::cuda_detail {

/// rows[t] = what the token's selected probabilities are divided by: their sum, or 1.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    gate_divisors(trace_arrays trace, assignment_arrays assigned, bool renormalized, double* rows) {
  const index_t token = blockIdx.x * Threads + threadIdx.x;
  if (token >= trace.tokens)
    return;
  double sum = 0;
  for (index_t a = assigned.offsets[token]; a < assigned.offsets[token + 1]; ++a)
    if (assigned.experts[a] < trace.experts)
      sum += static_cast<double>(trace.probabilities[std::size_t{token} * trace.experts + assigned.experts[a]]);
  rows[token] = renormalized ? sum : 1;
}

/// sums[e] = Σ of the gates of expert e = blockIdx.x
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    sum_gates(trace_arrays trace, plan_arrays plan, const double* divisors, double* sums) {
  static_assert(Threads == loss_threads);
  const index_t e = blockIdx.x, first = plan.offsets[e];
  const double sum = block_sum_of(plan.offsets[e + 1] - first, [&](index_t i) {
    const index_t token = plan.tokens[first + i];
    const double divisor = divisors[token];
    return divisor > 0 ? static_cast<double>(trace.probabilities[std::size_t{token} * trace.experts + e]) / divisor : 0;
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
  const double n = experts, mean = block_sum_of(experts, [&](index_t e) { return scratch.sums[e] / n; });
  const double squares = block_sum_of(experts, [&](index_t e) {
    const double difference = scratch.sums[e] - mean;
    return difference * difference;
  });
  const double variance = experts < 2 ? 0 : squares / (n - 1), square = mean * mean + 1e-10;
  for (index_t e = threadIdx.x; e < experts; e += Threads) {
    const double slope =
        experts < 2 ? 0 : 2 * (scratch.sums[e] - mean) / (n - 1) / square - variance * 2 * mean / n / (square * square);
    scratch.sums[e] = coefficient * slope;
    scratch.gradient[e] = static_cast<float>(coefficient * slope);
  }
  if (threadIdx.x == 0)
    *value = variance / square;
}

/// losses::detail::add_gates_gradient for the gates of selected experts, a thread per token.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    add_gates_gradient(trace_arrays trace, assignment_arrays assigned, bool renormalized, loss_scratch scratch) {
  const index_t token = blockIdx.x * Threads + threadIdx.x;
  if (token >= trace.tokens)
    return;
  const double divisor = scratch.rows[token];
  if (!(divisor > 0))
    return;
  const index_t first = assigned.offsets[token], end = assigned.offsets[token + 1];
  const std::size_t row = std::size_t{token} * trace.experts;
  double mean = 0;
  if (renormalized)
    for (index_t a = first; a < end; ++a)
      if (const index_t e = assigned.experts[a]; e < trace.experts)
        mean += scratch.sums[e] * static_cast<double>(trace.probabilities[row + e]) / divisor;
  for (index_t a = first; a < end; ++a)
    if (const index_t e = assigned.experts[a]; e < trace.experts)
      trace.d_probabilities[row + e] += static_cast<float>((scratch.sums[e] - mean) / divisor);
}

inline void launch_loss(const losses::importance& loss, const record_arrays& record, const loss_scratch& scratch,
                        double* value, cudaStream_t stream) {
  const bool all = loss.gates == losses::gate_values::probabilities,
             renormalized = loss.gates == losses::gate_values::renormalized;
  const unsigned token_blocks = blocks_of(record.trace.tokens, loss_threads);
  if (!all) {
    gate_divisors<loss_threads>
        <<<token_blocks, loss_threads, 0, stream>>>(record.trace, record.assigned, renormalized, scratch.rows);
    require_launched("gate_divisors");
    sum_gates<loss_threads>
        <<<record.trace.experts, loss_threads, 0, stream>>>(record.trace, record.plan, scratch.rows, scratch.sums);
    require_launched("sum_gates");
  }
  squared_variation<loss_threads>
      <<<1, loss_threads, 0, stream>>>(scratch, record.trace.experts, all, loss.coefficient, value);
  require_launched("squared_variation");
  if (all) {
    launch_add_to_columns(record, scratch, stream);
    return;
  }
  add_gates_gradient<loss_threads>
      <<<token_blocks, loss_threads, 0, stream>>>(record.trace, record.assigned, renormalized, scratch);
  require_launched("add_gates_gradient");
}

} // namespace hmoe::backends::cuda_detail
