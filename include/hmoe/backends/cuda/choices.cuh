// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/scan.cuh>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/// The choices of another router as an assignment: CSR by token, experts in ascending order, each once.
namespace hmoe::backends::cuda_detail {

/// Ids and weights as they were given, rows `…_stride` values apart.
struct choice_source {
  const std::int64_t* ids;
  const float* weights;
  std::size_t ids_stride, weights_stride;
  index_t tokens, choices, experts;
};

/// What is known of each choice, [tokens × choices].
struct choice_entries {
  std::uint8_t* first;    ///< 1: an expert that no choice before it names
  index_t* entries;       ///< its entry of the assignment; no_index: no expert
  index_t *counts, *sums; ///< [tokens] entries of a token, and their running sums
};

inline constexpr unsigned choice_threads = 128, choice_tokens = choice_threads / 32; ///< a warp has a token

/// Ids that are no expert become no_index.
[[nodiscard]] __device__ inline index_t expert_of(const choice_source& from, std::size_t token, index_t k) {
  const std::int64_t id = from.ids[token * from.ids_stride + k];
  return id >= 0 && id < static_cast<std::int64_t>(from.experts) ? static_cast<index_t>(id) : no_index;
}

template <unsigned Threads>
__global__ void __launch_bounds__(Threads) count_choices(choice_source from, choice_entries to) {
  const index_t token = blockIdx.x * (Threads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (token >= from.tokens)
    return;
  index_t count = 0;
  for (index_t k = lane; k < from.choices; k += 32) {
    const index_t mine = expert_of(from, token, k);
    bool first = mine != no_index;
    for (index_t j = 0; j < k && first; ++j)
      first = expert_of(from, token, j) != mine;
    to.first[std::size_t{token} * from.choices + k] = first ? 1 : 0;
    count += first ? 1 : 0;
  }
  for (unsigned distance = 16; distance > 0; distance /= 2)
    count += __shfl_xor_sync(0xffffffffU, count, distance);
  if (lane == 0)
    to.counts[token] = count;
}

/// An expert's place is the number of the token's experts below it; its weight the sum of those of its choices, in
/// their order.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads)
    assign_choices(choice_source from, choice_entries to, assignment_arrays assigned) {
  const index_t token = blockIdx.x * (Threads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (token >= from.tokens)
    return;
  const index_t begin = token == 0 ? 0 : to.sums[token - 1];
  if (lane == 0) {
    assigned.offsets[token] = begin;
    if (token + 1 == from.tokens)
      assigned.offsets[from.tokens] = to.sums[token];
  }
  const std::size_t row = std::size_t{token} * from.choices;
  for (index_t k = lane; k < from.choices; k += 32) {
    const index_t mine = expert_of(from, token, k);
    if (mine == no_index) {
      to.entries[row + k] = no_index;
      continue;
    }
    index_t entry = begin;
    float weight = 0;
    for (index_t j = 0; j < from.choices; ++j) {
      const index_t other = expert_of(from, token, j);
      entry += other < mine && to.first[row + j] != 0 ? 1 : 0;
      weight += other == mine ? from.weights[token * from.weights_stride + j] : 0.0F;
    }
    to.entries[row + k] = entry;
    if (to.first[row + k] != 0) {
      assigned.experts[entry] = mine;
      assigned.weights[entry] = weight;
    }
  }
}

/// to[t, k] = values[entry of choice k of token t], or 0 where there is none.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads) spread_entries(const index_t* entries, const float* values, float* to,
                                                          std::size_t to_stride, index_t choices, index_t count) {
  const index_t i = blockIdx.x * Threads + threadIdx.x; // 32 bits: a division per element
  if (i >= count)
    return;
  const index_t entry = entries[i];
  to[std::size_t{i / choices} * to_stride + i % choices] = entry == no_index ? 0.0F : values[entry];
}

/// The assignment of choices; it has room for all of them. There are tokens and choices.
inline void launch_choices(const choice_source& from, const choice_entries& scratch, const assignment_arrays& assigned,
                           cudaStream_t stream) {
  const unsigned blocks = blocks_of(from.tokens, choice_tokens);
  launch{"count_choices", stream, blocks, choice_threads}(count_choices<choice_threads>, from, scratch);
  running_sums(scratch.counts, scratch.sums, from.tokens, stream);
  launch{"assign_choices", stream, blocks, choice_threads}(assign_choices<choice_threads>, from, scratch, assigned);
}

inline void launch_spread(const choice_source& from, const choice_entries& scratch, const float* values, float* to,
                          std::size_t to_stride, cudaStream_t stream) {
  constexpr unsigned threads = 256;
  const index_t count = from.tokens * from.choices; // below no_index, as entries are
  launch{"spread_entries", stream, blocks_of(count, threads), threads}(spread_entries<threads>, scratch.entries, values,
                                                                       to, to_stride, from.choices, count);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
