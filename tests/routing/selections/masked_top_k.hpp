// SPDX-License-Identifier: MIT
#pragma once

#include "coarse_rows.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace coarse {

/// What the papers say: groups by their score, all others masked, the best k of what is left.
inline ids masked_top_k(const std::vector<double>& row, std::size_t groups, std::size_t kept, std::size_t k,
                        bool best_two, double mask) {
  const std::size_t size = row.size() / groups;
  std::vector<double> scores;
  for (std::size_t g = 0; g < groups; ++g) {
    std::vector<double> members(row.begin() + static_cast<std::ptrdiff_t>(g * size),
                                row.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(members.rbegin(), members.rend());
    scores.push_back(members[0] + (best_two ? members[1] : 0));
  }
  std::vector<double> masked(row.size(), mask);
  for (const std::size_t g : best(scores, kept))
    for (std::size_t e = g * size; e < (g + 1) * size; ++e)
      masked[e] = row[e];
  return best(masked, k);
}

} // namespace coarse
