// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_policies.hpp>
#include <hmoe/routing/preference.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include <cuda_runtime_api.h>

/// Selections by a warp over one token's row. They choose exactly what the plain ones of hmoe/routing/ do.
namespace hmoe::backends::cuda_detail {

inline constexpr unsigned whole_warp = 0xffffffffU;
/// A lane keeps its choices as bits.
inline constexpr std::size_t most_warp_experts = 32 * 32;

[[nodiscard]] __device__ __forceinline__ unsigned lane_id() { return threadIdx.x % 32; }

/// A row in shared memory. Lane l works on the experts l, l + 32, l + 64, …; bit j of its choices is expert l + 32 j.
/// `scratch` has room for warp_scratch(selection) values. Selections may overwrite both.
struct warp_row {
  float* values;
  unsigned size;
  float* scratch;
};

/// Maps values to numbers in the order of routing::preferred: larger is preferred, NaN comes last, −0 equals 0.
[[nodiscard]] __device__ __forceinline__ unsigned preference_of(float value) {
  if (value != value)
    return 0;
  const unsigned bits = __float_as_uint(value + 0.0F);
  return bits ^ ((bits >> 31U) != 0 ? 0xffffffffU : 0x80000000U);
}

/// The experts of a row from the most preferred on. Those of the lane's bits `masked` count as `instead`.
class warp_preference {
public:
  __device__ warp_preference(const float* values, unsigned size, unsigned masked = 0, float instead = 0)
      : values_(values), size_(size), masked_(masked), instead_(instead) {
    find_best();
  }

  /// The most preferred one that is not taken; no_index when all are.
  [[nodiscard]] __device__ index_t next() const {
    const unsigned best = __reduce_max_sync(whole_warp, best_value_);
    return __reduce_min_sync(whole_warp, best_value_ == best ? best_id_ : no_index);
  }
  __device__ index_t take() {
    const index_t id = next();
    if (id % 32 == lane_id() && id != no_index) {
      taken_ |= 1U << (id / 32);
      find_best();
    }
    return id;
  }
  /// The lane's bits of what was taken.
  [[nodiscard]] __device__ unsigned taken() const { return taken_; }

private:
  __device__ void find_best() {
    best_value_ = 0;
    best_id_ = no_index;
    for (unsigned e = lane_id(), j = 0; e < size_; e += 32, ++j) {
      const unsigned value = preference_of((masked_ >> j & 1U) != 0 ? instead_ : values_[e]);
      if ((taken_ >> j & 1U) == 0 && (best_id_ == no_index || value > best_value_)) {
        best_value_ = value;
        best_id_ = e;
      }
    }
  }

  const float* values_;
  unsigned size_, masked_, taken_ = 0, best_value_ = 0;
  float instead_;
  index_t best_id_ = no_index;
};

/// Whether there is a warp_select for a selection, and whether it chooses the same number for every token.
template <class Selection> inline constexpr bool selects_by_warp = false;
template <class Selection> inline constexpr bool selects_fixed_count = false;
template <class Selection> [[nodiscard]] std::size_t warp_scratch(const Selection&) noexcept { return 0; }

template <std::size_t K, std::size_t N> inline constexpr bool selects_by_warp<routing::top_k<K, N>> = true;
template <std::size_t K, std::size_t N> inline constexpr bool selects_fixed_count<routing::top_k<K, N>> = true;
template <std::size_t K, std::size_t N>
__device__ unsigned warp_select(const routing::top_k<K, N>& select, const warp_row& row) {
  warp_preference order(row.values, row.size);
  for (std::size_t i = 0; i < select.k(); ++i)
    order.take();
  return order.taken();
}

template <> inline constexpr bool selects_by_warp<routing::top_p> = true;
__device__ inline unsigned warp_select(const routing::top_p& select, const warp_row& row) {
  warp_preference order(row.values, row.size);
  double sum = 0;
  unsigned count = 0;
  do {
    sum += static_cast<double>(row.values[order.take()]);
    ++count;
  } while (!(sum >= select.p) && count < row.size);
  return order.taken();
}

template <> inline constexpr bool selects_by_warp<device_top_p> = true;
__device__ inline unsigned warp_select(const device_top_p& select, const warp_row& row) {
  return warp_select(routing::top_p(*select.p), row);
}

template <> inline constexpr bool selects_by_warp<routing::cumulative_threshold> = true;
__device__ inline unsigned warp_select(const routing::cumulative_threshold& select, const warp_row& row) {
  warp_preference order(row.values, row.size);
  const std::size_t most = select.max_selected(row.size);
  float sum = row.values[order.next()];
  std::size_t count = 0;
  index_t next;
  do {
    order.take();
    if (++count == most)
      break;
    next = order.next();
    sum += row.values[next];
  } while (!(static_cast<double>(sum - row.values[next]) >= select.limit));
  return order.taken();
}

/// The lane's bits of the experts for which chosen(value).
template <class Predicate> __device__ unsigned warp_select_each(const warp_row& row, Predicate chosen) {
  unsigned bits = 0;
  for (unsigned e = lane_id(), j = 0; e < row.size; e += 32, ++j)
    bits |= chosen(row.values[e]) ? 1U << j : 0U;
  return bits;
}

template <> inline constexpr bool selects_by_warp<routing::threshold> = true;
__device__ inline unsigned warp_select(const routing::threshold& select, const warp_row& row) {
  return warp_select_each(row, [&](float p) { return !(static_cast<double>(p) < select.minimum); });
}

template <> inline constexpr bool selects_by_warp<routing::positive> = true;
__device__ inline unsigned warp_select(const routing::positive&, const warp_row& row) {
  return warp_select_each(row, [](float p) { return !(p <= 0); });
}

template <routing::group_score Score, routing::group_mask Mask>
inline constexpr bool selects_by_warp<routing::group_limited<Score, Mask>> = true;
template <routing::group_score Score, routing::group_mask Mask>
inline constexpr bool selects_fixed_count<routing::group_limited<Score, Mask>> = true;
template <routing::group_score Score, routing::group_mask Mask>
[[nodiscard]] std::size_t warp_scratch(const routing::group_limited<Score, Mask>& select) noexcept {
  return select.groups;
}
/// A lane values whole groups; then the warp takes the best of them, and the best experts of what they hold.
template <routing::group_score Score, routing::group_mask Mask>
__device__ unsigned warp_select(const routing::group_limited<Score, Mask>& select, const warp_row& row) {
  const auto groups = static_cast<unsigned>(select.groups), size = row.size / groups;
  const float least = -__int_as_float(0x7f800000); // routing::least_preferred
  for (unsigned g = lane_id(); g < groups; g += 32) {
    index_t best = no_index, second = no_index;
    for (index_t e = g * size; e < (g + 1) * size; ++e)
      if (best == no_index || routing::preferred(row.values[e], e, row.values[best], best)) {
        second = best;
        best = e;
      } else if (second == no_index || routing::preferred(row.values[e], e, row.values[second], second)) {
        second = e;
      }
    const bool alone = Score == routing::group_score::best || row.values[second] == least; // or out of service
    row.scratch[g] = alone ? row.values[best] : row.values[best] + row.values[second];
  }
  __syncwarp();
  warp_preference order(row.scratch, groups);
  for (std::size_t i = 0; i < select.kept; ++i)
    order.take();
  __syncwarp();
  for (unsigned g = lane_id(), j = 0; g < groups; g += 32, ++j)
    row.scratch[g] = static_cast<float>(order.taken() >> j & 1U);
  __syncwarp();
  unsigned masked = 0;
  for (unsigned e = lane_id(), j = 0; e < row.size; e += 32, ++j)
    masked |= row.scratch[e / size] == 0 && row.values[e] != least ? 1U << j : 0U;
  warp_preference kept(row.values, row.size, masked, Mask == routing::group_mask::zero ? 0.0F : least);
  for (std::size_t i = 0; i < select.k; ++i)
    kept.take();
  return kept.taken();
}

template <class Inner>
inline constexpr bool selects_by_warp<routing::biased_view<float, Inner>> = selects_by_warp<Inner>;
template <class Inner>
inline constexpr bool selects_fixed_count<routing::biased_view<float, Inner>> = selects_fixed_count<Inner>;
template <class Inner>
[[nodiscard]] std::size_t warp_scratch(const routing::biased_view<float, Inner>& select) noexcept {
  return warp_scratch(select.select);
}
template <class Inner>
__device__ unsigned warp_select(const routing::biased_view<float, Inner>& select, const warp_row& row) {
  for (unsigned e = lane_id(); e < row.size; e += 32)
    row.values[e] += select.bias[e];
  __syncwarp();
  return warp_select(select.select, row);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
