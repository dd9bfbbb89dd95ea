// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/project_tokens.cuh>
#include <hmoe/backends/cuda/route.cuh>
#include <hmoe/backends/cuda/scan.cuh>
#include <hmoe/core/error.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <limits>

/// routing::router::forward on the device, without a word to the host in between: logits, choices, offsets, weights.
namespace hmoe::backends::cuda_detail {

/// What a router's forward pass has in its workspace.
struct router_forward_scratch {
  choice_arrays choices;
  index_t* sums;      ///< [tokens] running sums of the counts, where they differ from token to token
  float* gate_logits; ///< [tokens × gates]
  float* logit_sums;  ///< see logit_parts::values
  std::size_t bytes;
};
template <class View>
[[nodiscard]] router_forward_scratch carve_router_forward(const View& router, std::size_t tokens, std::byte* block) {
  carver memory(block);
  router_forward_scratch result{};
  result.choices.chosen = memory.take<index_t>(tokens * router.most);
  result.choices.counts = memory.take<index_t>(tokens);
  result.choices.unclear = memory.take<std::uint8_t>(tokens);
  result.choices.scratch = memory.take<float>(tokens * global_scratch(router));
  result.gate_logits = memory.take<float>(router.shared_gate == nullptr ? 0 : tokens * router.shared);
  result.logit_sums = memory.take<float>(logit_parts::values(tokens, projection_columns_of(router), router.d));
  if constexpr (!has_fixed_count<View>)
    result.sums = memory.take<index_t>(tokens);
  result.bytes = memory.used();
  return result;
}

/// Entries of the tokens before `token`; those of a token that does not fit the capacity, and of all behind it, are
/// cut. `sums`: see router_forward_scratch; null when each token has `each` entries.
[[nodiscard]] __device__ inline index_t kept_entries(const index_t* sums, index_t each, index_t token,
                                                     index_t capacity) {
  if (sums == nullptr) {
    const index_t fitting = each == 0 ? token : capacity / each;
    return (token < fitting ? token : fitting) * each;
  }
  if (token == 0 || sums[token - 1] <= capacity)
    return token == 0 ? 0 : sums[token - 1];
  index_t low = 0, high = token; // the last token whose entries fit, plus one, is at least low and below high
  while (low + 1 < high) {
    const index_t middle = low + (high - low) / 2;
    (sums[middle - 1] <= capacity ? low : high) = middle;
  }
  return low == 0 ? 0 : sums[low - 1];
}

inline constexpr unsigned assign_threads = 128;

/// A thread per token: its place in the assignment, its ids and their weights. Entry `tokens` is the total.
template <class View>
__global__ void __launch_bounds__(assign_threads, 8)
    assign_entries(View router, trace_arrays trace, choice_arrays choices, const index_t* sums,
                   const float* gate_logits, assignment_arrays assigned, device_status* status) {
  const index_t token = blockIdx.x * assign_threads + threadIdx.x, tokens = trace.tokens;
  if (token > tokens)
    return;
  const index_t each = router.most + router.shared;
  const index_t first = kept_entries(sums, each, token, assigned.capacity);
  assigned.offsets[token] = first;
  if (token == tokens) {
    const index_t needed = sums == nullptr ? tokens * each : tokens == 0 ? 0 : sums[tokens - 1];
    if (needed > assigned.capacity)
      atomicMax(&status->entries_needed, needed);
    return;
  }
  const index_t end = kept_entries(sums, each, token + 1, assigned.capacity);
  if (end == first)
    return;
  const index_t count = end - first - router.shared, experts = router.experts;
  const vector_view<float> weights(assigned.weights + first, count);
  for (index_t i = 0; i < count; ++i)
    assigned.experts[first + i] = choices.chosen[std::size_t{token} * router.most + i];
  if (count != 0)
    router.weighting.forward(vector_view<const float>(trace.logits + std::size_t{token} * experts, experts),
                             vector_view<const float>(trace.probabilities + std::size_t{token} * experts, experts),
                             vector_view<const index_t>(assigned.experts + first, count), weights);
  if (choices.unclear[token] != 0) // the choice among NaN means nothing: it must show
    for (float& weight : weights)
      weight = __int_as_float(0x7fffffff);
  for (index_t j = 0; j < router.shared; ++j) {
    assigned.experts[first + count + j] = experts + j;
    assigned.weights[first + count + j] =
        gate_logits == nullptr ? 1.0F : hmoe::logistic(gate_logits[std::size_t{token} * router.shared + j]);
  }
}

/// Device memory that router_forward uses while it runs, aligned to 256 bytes.
template <class View> [[nodiscard]] std::size_t router_forward_bytes(const View& router, std::size_t tokens) {
  return carve_router_forward(router, tokens, nullptr).bytes;
}

/// x [tokens × d], rows x_stride values apart (S: float, bfloat16 or half) → trace.logits, trace.probabilities and the
/// assignment. A token whose entries would lie beyond assigned.capacity has none, nor has any behind it, and
/// status->entries_needed says how many there are. A logit that is NaN or infinite raises status->non_finite_logit, and
/// runs through to the output of its token as with routing::non_finite::propagate. A token for which a selection
/// returned nonsense has no routed expert, and raises status->invalid_choice. trace.tokens_per_expert is build_plan's
/// to write.
template <class S, class View>
void router_forward(const View& router, const S* x, std::size_t x_stride, const trace_arrays& trace,
                    const assignment_arrays& assigned, device_status* status, std::byte* workspace,
                    cudaStream_t stream) {
  require(router.most_entries(trace.tokens) < no_index, trace.tokens, " tokens with up to ",
          router.most + router.shared, " experts are too many for 32-bit entries");
  require(trace.tokens <= std::size_t{std::numeric_limits<int>::max()}, trace.tokens,
          " tokens are too many for 31-bit row numbers");
  const router_forward_scratch scratch = carve_router_forward(router, trace.tokens, workspace);
  const projection_rows rows = projection_of(router);
  const float* gate_logits = rows.count == rows.experts ? nullptr : scratch.gate_logits;
  const logit_sums sums = launch_projection(token_rows(x, x_stride, trace.tokens, router.d), rows,
                                            logit_parts::of(trace.tokens, projection_columns_of(router), router.d),
                                            router.bias, scratch.logit_sums, scratch.gate_logits, stream);
  launch_routing(router, sums, trace, scratch.choices, status, stream);
  if constexpr (!has_fixed_count<View>)
    running_sums(scratch.choices.counts, scratch.sums, trace.tokens, stream);
  launch{"assign_entries", stream, blocks_of(std::size_t{trace.tokens} + 1, assign_threads), assign_threads}(
      assign_entries<View>, router, trace, scratch.choices, scratch.sums, gate_logits, assigned, status);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
