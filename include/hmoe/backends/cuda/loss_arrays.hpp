// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/core/config.hpp>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// hmoe::routed_batch on the device, with the plan.
struct routed_batch_arrays {
  trace_arrays trace; ///< with sinks
  assignment_arrays assigned;
  plan_arrays plan;
  const index_t* widths;              ///< [trace.experts] hidden width of each routed expert
  index_t widest;                     ///< the largest of them, which the host knows
  const index_t* sequences = nullptr; ///< [sequence_count + 1] first token of each sequence, or null: one sequence
  index_t sequence_count = 0, sequences_with_tokens = 0, sequence_tokens = 0;
};

/// Throws what losses::…::evaluate throws on the host, before anything is launched. Most losses take all routings.
template <class Loss> void check_loss(const Loss&, const routed_batch_arrays&) {}

/// Tokens whose probabilities one block adds up: fixed, so that the order of the sum is.
inline constexpr std::size_t column_sum_tokens = 512;

/// What losses have in their workspace; one after the other uses it.
struct loss_scratch {
  double* column_sums; ///< [parts × experts] Σ p over parts of the tokens
  double* costs;       ///< [experts] what the caller says that experts cost
  double* sums;        ///< [experts] Σ of gates
  double* rows;        ///< [tokens] a value of each token
  float* gradient;     ///< [experts] the same for all tokens
  index_t* counts;     ///< [experts]
  index_t parts;
  std::size_t bytes;
};
[[nodiscard]] inline loss_scratch carve_losses(std::size_t tokens, std::size_t experts, std::byte* block) {
  carver memory(block);
  loss_scratch result{};
  result.parts = static_cast<index_t>((tokens + column_sum_tokens - 1) / column_sum_tokens);
  result.column_sums = memory.take<double>(result.parts * experts);
  result.costs = memory.take<double>(experts);
  result.sums = memory.take<double>(experts);
  result.rows = memory.take<double>(tokens);
  result.gradient = memory.take<float>(experts);
  result.counts = memory.take<index_t>(experts);
  result.bytes = memory.used();
  return result;
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
