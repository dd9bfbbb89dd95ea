// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/statistics/number_list.hpp>

#include <vector>

namespace hmoe::statistics {

/// [T] Σ cost[e] over each token's experts: its activated width, parameters or FLOPs, or with ones its number of
/// experts. hmoe::error for an expert that has no cost. The mean over a batch: layer_cost::activated, or
/// expert_load::per_token.
template <class T, number_list Cost>
[[nodiscard]] std::vector<double> activated_per_token(const assignment<T>& assigned, const Cost& cost) {
  std::vector<double> result(assigned.tokens());
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    for (const index_t e : assigned.experts_of(t)) {
      require(e < detail::count_of(cost), "token ", t, " has expert ", e, ", costs are given for ",
              detail::count_of(cost));
      result[t] += detail::at(cost, e);
    }
  return result;
}

/// [T] number of experts of each token.
template <class T> [[nodiscard]] std::vector<std::size_t> experts_per_token(const assignment<T>& assigned) {
  std::vector<std::size_t> result;
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    result.push_back(assigned.experts_of(t).size());
  return result;
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
