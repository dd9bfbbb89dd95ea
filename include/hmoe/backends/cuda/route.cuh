// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/logits.cuh>
#include <hmoe/backends/cuda/warp_score.cuh>
#include <hmoe/backends/cuda/warp_selection.cuh>
#include <hmoe/routing/selection.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/// From logits to each token's choices: by a warp per token where the policies have such a form, and else by a thread
/// per token that runs them as they are.
namespace hmoe::backends::cuda_detail {

/// Choices on their way into an assignment.
struct choice_arrays {
  index_t* chosen;       ///< [tokens × most] ids ascend
  index_t* counts;       ///< [tokens] how many of a row are chosen, plus the shared experts
  std::uint8_t* unclear; ///< [tokens] whether a probability is NaN, so that the choice means nothing
  float* scratch;        ///< [tokens × selection_scratch], for a thread per token
};

template <class View> inline constexpr bool routes_by_warp = false;
template <class Function, class Selection, class Weighting>
inline constexpr bool routes_by_warp<router_view<Function, Selection, Weighting>> =
    scores_by_warp<Function> && selects_by_warp<Selection>;
template <class View> inline constexpr bool has_fixed_count = false;
template <class Function, class Selection, class Weighting>
inline constexpr bool has_fixed_count<router_view<Function, Selection, Weighting>> = selects_fixed_count<Selection>;

/// A warp per token is possible for these sizes. Shared memory bounds the scratch.
template <class View> [[nodiscard]] bool fits_warps(const View& router) noexcept {
  if constexpr (routes_by_warp<View>)
    return router.experts <= most_warp_experts && warp_scratch(router.select) <= most_warp_experts;
  else
    return false;
}

inline constexpr unsigned routing_warps = 4;     ///< tokens of a block, when a warp has one
inline constexpr unsigned routing_threads = 128; ///< tokens of a block, when a thread has one
inline constexpr unsigned sum_threads = 128;     ///< logits of a block, where a thread has a token

template <class View>
__global__ void __launch_bounds__(routing_warps * 32, 8)
    route_by_warps(View router, logit_sums sums, trace_arrays trace, choice_arrays choices, device_status* status,
                   unsigned row_floats) {
  extern __shared__ float shared_rows[];
  const unsigned lane = lane_id(), warp = threadIdx.x / 32, experts = router.experts;
  const index_t token = blockIdx.x * routing_warps + warp;
  if (token >= trace.tokens)
    return; // the whole warp
  float* values = shared_rows + warp * row_floats;
  const warp_row row{values, experts, values + experts};
  float* logits = trace.logits + std::size_t{token} * experts;
  float* probabilities = trace.probabilities + std::size_t{token} * experts;

  bool infinite = false, unclear = false;
  for (unsigned e = lane; e < experts; e += 32) {
    const float z = sums(token, e);
    values[e] = logits[e] = z;
    infinite |= !isfinite(z);
  }
  for (unsigned j = experts + lane; j < sums.columns; j += 32)
    sums.write_gate(token, j);
  warp_score(router.function, row);
  for (unsigned e = lane; e < experts; e += 32) {
    probabilities[e] = values[e];
    unclear |= isnan(values[e]);
  }
  infinite = __any_sync(whole_warp, infinite);
  unclear = __any_sync(whole_warp, unclear);
  __syncwarp();
  const unsigned bits = warp_select(router.select, row);

  index_t* chosen = choices.chosen + std::size_t{token} * router.most;
  unsigned count = 0;
  for (unsigned first = 0, j = 0; first < experts; first += 32, ++j) {
    const bool mine = (bits >> j & 1U) != 0;
    const unsigned taken = __ballot_sync(whole_warp, mine);
    if (mine)
      chosen[count + __popc(taken & ((1U << lane) - 1))] = first + lane;
    count += __popc(taken);
  }
  if (lane == 0) {
    choices.counts[token] = count + router.shared;
    choices.unclear[token] = unclear ? 1 : 0;
    if (infinite)
      atomicMax(&status->non_finite_logit, token + 1);
  }
}

/// Block (token, ·): trace.logits and gate logits, where no warp makes them on the way.
template <unsigned Threads> __global__ void __launch_bounds__(Threads) write_logits(logit_sums sums, float* logits) {
  const index_t token = blockIdx.x, j = blockIdx.y * Threads + threadIdx.x;
  if (j < sums.experts)
    logits[std::size_t{token} * sums.experts + j] = sums(token, j);
  else if (j < sums.columns)
    sums.write_gate(token, j);
}

/// Puts a token's choices in ascending order; false when they are not different ids of experts.
[[nodiscard]] __device__ inline bool sort_choices(vector_view<index_t> ids, index_t experts) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const index_t id = ids[i];
    std::size_t at = i;
    for (; at > 0 && ids[at - 1] > id; --at)
      ids[at] = ids[at - 1];
    ids[at] = id;
    if (id >= experts || (at > 0 && ids[at - 1] == id))
      return false;
  }
  return true;
}

/// routing::select_row, for the device only: a selection that is not HMOE_HOST_DEVICE does not compile here.
template <class Selection>
[[nodiscard]] __device__ std::size_t select_by_thread(const Selection& select, vector_view<const float> p,
                                                      vector_view<index_t> chosen, vector_view<float> scratch) {
  if constexpr (requires { select(p, chosen, scratch); })
    return static_cast<std::size_t>(select(p, chosen, scratch));
  else
    return static_cast<std::size_t>(select(p, chosen));
}

template <class View>
__global__ void __launch_bounds__(routing_threads, 8)
    route_by_threads(View router, trace_arrays trace, choice_arrays choices, device_status* status,
                     std::size_t scratch_size) {
  const index_t token = blockIdx.x * routing_threads + threadIdx.x, experts = router.experts;
  if (token >= trace.tokens)
    return;
  const vector_view<const float> logits(trace.logits + std::size_t{token} * experts, experts);
  const vector_view<float> probabilities(trace.probabilities + std::size_t{token} * experts, experts);
  const vector_view<index_t> chosen(choices.chosen + std::size_t{token} * router.most, router.most);
  router.function.forward(logits, probabilities);
  bool infinite = false, unclear = false;
  for (index_t e = 0; e < experts; ++e) {
    infinite |= !isfinite(logits[e]);
    unclear |= isnan(probabilities[e]);
  }
  if (infinite)
    atomicMax(&status->non_finite_logit, token + 1);
  std::size_t count = select_by_thread(router.select, vector_view<const float>(probabilities), chosen,
                                       vector_view<float>(choices.scratch + token * scratch_size, scratch_size));
  // A selection may come from anywhere, so what it returns is checked.
  if (count > chosen.size() || !sort_choices(chosen.subview(0, count), experts)) {
    atomicMax(&status->invalid_choice, token + 1);
    count = 0;
  }
  choices.counts[token] = static_cast<index_t>(count) + router.shared;
  choices.unclear[token] = unclear ? 1 : 0;
}

/// Floats of scratch that a token's selection wants in global memory.
template <class View> [[nodiscard]] std::size_t global_scratch(const View& router) {
  return fits_warps(router) ? 0 : routing::selection_scratch(router.select, router.experts);
}

/// Sums → trace.logits and gate logits, trace.probabilities and choices.
template <class View>
void launch_routing(const View& router, const logit_sums& sums, const trace_arrays& trace, const choice_arrays& choices,
                    device_status* status, cudaStream_t stream) {
  if (trace.tokens == 0)
    return;
  if constexpr (routes_by_warp<View>)
    if (fits_warps(router)) {
      const auto row_floats = static_cast<unsigned>(router.experts + warp_scratch(router.select));
      launch{"route_by_warps", stream, blocks_of(trace.tokens, routing_warps), routing_warps * 32,
             routing_warps * row_floats * sizeof(float)}(route_by_warps<View>, router, sums, trace, choices, status,
                                                         row_floats);
      return;
    }
  launch{"write_logits", stream, dim3(sums.tokens, blocks_of(sums.columns, sum_threads)),
         sum_threads}(write_logits<sum_threads>, sums, trace.logits);
  launch{"route_by_threads", stream, blocks_of(trace.tokens, routing_threads),
         routing_threads}(route_by_threads<View>, router, trace, choices, status, global_scratch(router));
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
