// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>

#include "support/random_matrix.hpp"

#include <cstddef>
#include <vector>

namespace dispatch_checks {

/// Each token goes to each expert with a chance of its own, so loads are uneven, and some tokens go nowhere. Weights
/// are multiples of 1/8, so that there are ties. The last `shared` experts get every token.
template <class T>
void assign_randomly(support::random_source& random, std::size_t tokens, std::size_t experts, std::size_t shared,
                     hmoe::assignment<T>& assigned) {
  std::vector<double> chance(experts);
  for (double& c : chance)
    c = random.real(0, 1) * random.real(0, 1);
  assigned.resize_tokens(tokens);
  std::vector<hmoe::index_t> ids;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t e = 0; e < experts; ++e)
      if (e + shared >= experts || random.real(0, 1) < chance[e])
        ids.push_back(static_cast<hmoe::index_t>(e));
    assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(ids.size());
  }
  assigned.resize_entries();
  for (std::size_t a = 0; a < ids.size(); ++a) {
    assigned.experts()[a] = ids[a];
    assigned.weights()[a] = static_cast<T>(random.size(1, 8)) / T(8);
  }
}

} // namespace dispatch_checks
