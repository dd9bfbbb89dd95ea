// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>

#include <algorithm>
#include <vector>

namespace support {

/// An assignment with these experts for each token, and weights that differ.
[[nodiscard]] inline hmoe::assignment<float> make_assignment(const std::vector<std::vector<hmoe::index_t>>& experts) {
  hmoe::assignment<float> assigned;
  assigned.resize_tokens(experts.size());
  for (std::size_t t = 0; t < experts.size(); ++t)
    assigned.offsets()[t + 1] = assigned.offsets()[t] + static_cast<hmoe::index_t>(experts[t].size());
  assigned.resize_entries();
  for (std::size_t t = 0; t < experts.size(); ++t)
    std::ranges::copy(experts[t], assigned.experts().begin() + assigned.offsets()[t]);
  for (std::size_t a = 0; a < assigned.size(); ++a)
    assigned.weights()[a] = 1.0F / static_cast<float>(a + 3);
  return assigned;
}

} // namespace support
