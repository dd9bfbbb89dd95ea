// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>
#include <span>

namespace hmoe::losses::detail {

/// Writes the group of each of the N experts and returns the number of groups. Groups are runs of neighbouring ids:
/// of the given sizes, or without any, of experts that have the same width. hmoe::error when the sizes do not add up
/// to N or one is 0.
inline std::size_t assign_groups(vector_view<const std::size_t> widths, std::span<const std::size_t> sizes,
                                 vector_view<index_t> group_of) {
  const std::size_t experts = group_of.size();
  if (sizes.empty()) {
    for (std::size_t e = 1; e < experts; ++e)
      group_of[e] = group_of[e - 1] + (widths[e] != widths[e - 1] ? 1U : 0U);
    return experts == 0 ? 0 : group_of[experts - 1] + std::size_t{1};
  }
  std::size_t next = 0;
  for (std::size_t g = 0; g < sizes.size(); ++g) {
    require(sizes[g] > 0 && sizes[g] <= experts - next, "expert group ", g, " has ", sizes[g], " experts, ",
            experts - next, " of ", experts, " are left for it");
    for (std::size_t i = 0; i < sizes[g]; ++i)
      group_of[next++] = static_cast<index_t>(g);
  }
  require(next == experts, "the ", sizes.size(), " expert groups have ", next, " experts in all, the layer ", experts);
  return sizes.size();
}

/// The number of groups that have an expert in service.
template <class T> std::size_t groups_in_service(const router_trace<T>& trace, vector_view<const index_t> group_of) {
  std::size_t groups = 0;
  index_t last = no_index; // a group is a run of ids
  for (std::size_t e = 0; e < group_of.size(); ++e)
    if (group_of[e] != last && trace.is_in_service(e)) {
      last = group_of[e];
      ++groups;
    }
  return groups;
}

/// counts[G] = tokens with an expert in each group; returns their sum, the (token, group) pairs.
template <class T>
double count_groups(const routed_batch<T>& batch, vector_view<const index_t> group_of, vector_view<double> counts) {
  double total = 0;
  for (std::size_t t = 0; t < batch.trace.tokens(); ++t) {
    index_t last = no_index; // ids ascend, and a group is a run of ids
    for (const index_t e : batch.assigned.experts_of(t))
      if (e < group_of.size() && group_of[e] != last) {
        last = group_of[e];
        counts[last] += 1;
        total += 1;
      }
  }
  return total;
}

} // namespace hmoe::losses::detail

#include <hmoe/core/macros_on.hpp>
