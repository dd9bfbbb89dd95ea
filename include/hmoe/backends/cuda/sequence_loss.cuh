// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/loss_sums.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/sequence_balance.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

/// losses::sequence_balance by the host's formulas, a block for each sequence of the batch.
namespace hmoe::backends::cuda_detail {

/// What the kernel needs of the loss; `weight`: one over the number of sequences that have tokens.
struct sequence_balance_rule {
  losses::balance_counts counts;
  losses::balance_normalization normalization;
  bool normalize_scores;
  double coefficient, weight;
};

/// rows[t]: what token t adds to the loss. `sequences`: null where the batch is one.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    balance_sequences(trace_arrays trace, assignment_arrays assigned, const index_t* sequences,
                      sequence_balance_rule loss, double* rows) {
  static_assert(Threads == loss_threads);
  extern __shared__ index_t sequence_counts[];
  const index_t first = sequences == nullptr ? 0 : sequences[blockIdx.x],
                last = sequences == nullptr ? trace.tokens : sequences[blockIdx.x + 1], experts = trace.experts;
  for (index_t e = threadIdx.x; e < experts; e += Threads)
    sequence_counts[e] = 0;
  __syncthreads();
  for (index_t t = first + threadIdx.x; t < last; t += Threads)
    if (loss.counts == losses::balance_counts::first_choice) {
      const index_t best = losses::detail::first_choice(probabilities_of(trace, t), experts_of(assigned, t));
      if (best != no_index)
        atomicAdd(sequence_counts + best, 1U);
    } else {
      for (const index_t e : experts_of(assigned, t))
        if (e < experts)
          atomicAdd(sequence_counts + e, 1U);
    }
  __syncthreads();
  const double total = block_sum_of(experts, [&](index_t e) { return static_cast<double>(sequence_counts[e]); });
  const auto tokens = static_cast<double>(last - first);
  const double divisor = losses::detail::choice_divisor(loss.normalization, tokens, total),
               share = loss.weight * static_cast<double>(experts) / tokens;
  const auto rate = [&](index_t e) {
    return losses::detail::choice_rate(static_cast<double>(sequence_counts[e]), divisor);
  };
  for (index_t t = first + threadIdx.x / 32; t < last; t += Threads / 32) { // a warp for each token
    const std::size_t row = std::size_t{t} * experts;
    double sum = 0, dot = 0;
    for (index_t e = lane_id(); e < experts; e += 32) {
      const auto p = static_cast<double>(trace.probabilities[row + e]);
      sum += p;
      dot += rate(e) * p;
    }
    sum = loss.normalize_scores ? warp_sum(sum) : 1;
    const double mean = sum > 0 ? warp_sum(dot) / sum : 0; // a token without any score has no distribution
    if (lane_id() == 0)
      rows[t] = mean * share;
    for (index_t e = lane_id(); e < experts && sum > 0; e += 32)
      trace.d_probabilities[row + e] +=
          static_cast<float>(loss.coefficient * share * (loss.normalize_scores ? (rate(e) - mean) / sum : rate(e)));
  }
}

inline void check_loss(const losses::sequence_balance&, const routed_batch_arrays& batch) {
  require(batch.sequences == nullptr || batch.sequence_tokens == batch.trace.tokens,
          "sequence_balance: the sequences span tokens 0 to ", batch.sequence_tokens, ", the batch has tokens 0 to ",
          batch.trace.tokens);
}
inline void launch_loss(const losses::sequence_balance& loss, const routed_batch_arrays& batch,
                        const loss_scratch& scratch, double* value, cudaStream_t stream) {
  const index_t blocks = batch.sequences == nullptr ? 1 : batch.sequence_count;
  const double weight = batch.sequences == nullptr ? 1 : 1 / static_cast<double>(batch.sequences_with_tokens);
  launch{"balance_sequences", stream, blocks, loss_threads, batch.trace.experts * sizeof(index_t)}(
      balance_sequences<loss_threads>, batch.trace, batch.assigned, batch.sequences,
      sequence_balance_rule{loss.counts, loss.normalization, loss.normalize_scores, loss.coefficient, weight},
      scratch.rows);
  launch_sum_rows(batch, scratch, value, stream);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
