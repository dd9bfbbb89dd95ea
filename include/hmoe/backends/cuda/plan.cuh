// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/scan.cuh>
#include <hmoe/core/error.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <limits>

/// dispatch::build_plan on the device. A token has an expert at most once, so the entries of 32 tokens for an expert
/// are the bits of a word, and an entry's place among them is the number of bits below its own: a stable counting sort
/// without a sort of keys.
namespace hmoe::backends::cuda_detail {

inline constexpr unsigned plan_threads = 256; ///< tokens of a block
inline constexpr unsigned plan_warps = plan_threads / 32;
inline constexpr unsigned plan_experts = 1024; ///< that a block holds words for; more are done in several rounds

/// What the sort keeps between its kernels, [experts × blocks].
struct plan_scratch {
  index_t *counts, *sums; ///< entries of an expert in a block's tokens, and their running sums
  index_t blocks;
  std::size_t bytes;
};
[[nodiscard]] inline plan_scratch carve_plan(std::size_t tokens, std::size_t experts, std::byte* block) {
  carver memory(block);
  plan_scratch result{};
  result.blocks = std::max(1U, blocks_of(tokens, plan_threads));
  const std::size_t counts = experts * result.blocks;
  require(counts < static_cast<std::size_t>(std::numeric_limits<int>::max()), "a plan for ", tokens, " tokens and ",
          experts, " experts is too large for the device");
  result.counts = memory.take<index_t>(counts);
  result.sums = memory.take<index_t>(counts);
  result.bytes = memory.used();
  return result;
}

/// A thread's walk over the entries of its token, in step with the rounds over experts.
struct entry_walk {
  index_t at = 0, end = 0;

  __device__ entry_walk(const assignment_arrays& assigned, index_t token) {
    if (token < assigned.tokens) {
      at = assigned.offsets[token];
      end = assigned.offsets[token + 1];
    }
  }
  /// f(entry, expert) for the entries of experts below `limit`, without moving on; returns where they end.
  template <class F> __device__ index_t for_each_below(const assignment_arrays& assigned, index_t limit, F&& f) const {
    index_t a = at;
    for (; a < end && assigned.experts[a] < limit; ++a)
      f(a, assigned.experts[a]);
    return a;
  }
};

/// words[warp · range + expert − first]: bit l is set when the token of lane l has the expert.
__device__ inline void mark_entries(unsigned* words, const assignment_arrays& assigned, const entry_walk& walk,
                                    index_t first, index_t range) {
  __syncthreads();
  for (unsigned i = threadIdx.x; i < plan_warps * range; i += plan_threads)
    words[i] = 0;
  __syncthreads();
  walk.for_each_below(assigned, first + range, [&](index_t, index_t expert) {
    atomicOr(words + threadIdx.x / 32 * range + (expert - first), 1U << threadIdx.x % 32);
  });
  __syncthreads();
}

template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    count_entries(assignment_arrays assigned, index_t experts, index_t* counts) {
  extern __shared__ unsigned plan_words[];
  entry_walk walk(assigned, blockIdx.x * Threads + threadIdx.x);
  for (index_t first = 0; first < experts; first += plan_experts) {
    const index_t range = experts - first < plan_experts ? experts - first : plan_experts;
    mark_entries(plan_words, assigned, walk, first, range);
    walk.at = walk.for_each_below(assigned, first + range, [](index_t, index_t) {});
    for (index_t e = threadIdx.x; e < range; e += Threads) {
      index_t count = 0;
      for (unsigned w = 0; w < plan_warps; ++w)
        count += static_cast<index_t>(__popc(plan_words[w * range + e]));
      counts[std::size_t{first + e} * gridDim.x + blockIdx.x] = count;
    }
  }
}

template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    place_entries(assignment_arrays assigned, plan_arrays plan, const index_t* sums, index_t* tokens_per_expert,
                  index_t routed) {
  extern __shared__ unsigned plan_words[];
  const index_t experts = plan.experts, token = blockIdx.x * Threads + threadIdx.x;
  const auto entries_before = [&](index_t expert, index_t block) { // of all experts and blocks in that order
    const std::size_t i = std::size_t{expert} * gridDim.x + block;
    return i == 0 ? 0 : sums[i - 1];
  };
  const unsigned warp = threadIdx.x / 32, below = (1U << threadIdx.x % 32) - 1;
  entry_walk walk(assigned, token);
  for (index_t first = 0; first < experts; first += plan_experts) {
    const index_t range = experts - first < plan_experts ? experts - first : plan_experts;
    mark_entries(plan_words, assigned, walk, first, range);
    walk.at = walk.for_each_below(assigned, first + range, [&](index_t entry, index_t expert) {
      const unsigned* words = plan_words + (expert - first);
      auto slot = entries_before(expert, blockIdx.x) + static_cast<index_t>(__popc(words[warp * range] & below));
      for (unsigned w = 0; w < warp; ++w)
        slot += static_cast<index_t>(__popc(words[w * range]));
      plan.tokens[slot] = token;
      plan.entries[slot] = entry;
      plan.slots[entry] = slot;
    });
  }
  if (blockIdx.x == 0)
    for (index_t e = threadIdx.x; e <= experts; e += Threads) {
      const index_t begin = entries_before(e, 0);
      plan.offsets[e] = begin;
      if (tokens_per_expert != nullptr && e < routed)
        tokens_per_expert[e] = entries_before(e + 1, 0) - begin;
    }
  for (std::size_t s = entries_before(experts, 0) + std::size_t{token}; s < plan.capacity;
       s += std::size_t{gridDim.x} * Threads)
    plan.tokens[s] = plan.entries[s] = plan.slots[s] = no_index;
}

/// Device memory that build_plan uses while it runs, aligned to 256 bytes.
[[nodiscard]] inline std::size_t build_plan_bytes(std::size_t tokens, std::size_t experts) {
  return carve_plan(tokens, experts, nullptr).bytes;
}

/// The plan of an assignment. plan.experts counts shared experts too. Slots and entries from the end of the assignment
/// up to the capacity become no_index. tokens_per_expert [routed]: how many tokens the first `routed` experts have, for
/// trace_arrays; may be null.
inline void build_plan(const assignment_arrays& assigned, const plan_arrays& plan, index_t* tokens_per_expert,
                       index_t routed, std::byte* workspace, cudaStream_t stream) {
  require(plan.capacity >= assigned.capacity, "a plan with room for ", plan.capacity, " entries was given for ",
          assigned.capacity);
  const plan_scratch scratch = carve_plan(assigned.tokens, plan.experts, workspace);
  const std::size_t words = std::min(plan.experts, plan_experts) * plan_warps * sizeof(unsigned);
  launch{"count_entries", stream, scratch.blocks, plan_threads, words}(count_entries<plan_threads>, assigned,
                                                                       plan.experts, scratch.counts);
  running_sums(scratch.counts, scratch.sums, std::size_t{plan.experts} * scratch.blocks, stream);
  launch{"place_entries", stream, scratch.blocks, plan_threads, words}(place_entries<plan_threads>, assigned, plan,
                                                                       scratch.sums, tokens_per_expert, routed);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
