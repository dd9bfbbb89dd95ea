// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/statistics/number_list.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace hmoe::statistics {

/// MaxVio = (max − mean) / mean of a load per expert (Wang et al. 2024, arXiv 2408.15664): 0 at balance, N − 1 when one
/// expert has everything. In tokens or, for experts of unequal cost, in FLOPs (expert_load::times); the slower device
/// waits for the latter. 0 when the mean is 0.
template <number_list Load> [[nodiscard]] double max_violation(const Load& load) {
  const double mean = detail::sum_of(load) / static_cast<double>(detail::count_of(load));
  if (!(mean > 0))
    return 0;
  double largest = 0;
  for (const auto value : load)
    largest = std::max(largest, static_cast<double>(value));
  return (largest - mean) / mean;
}

/// Standard deviation (of the N values, not of a sample) over the mean: 0 at balance, √(N − 1) when one expert has
/// everything. 0 when the mean is 0.
template <number_list Load> [[nodiscard]] double coefficient_of_variation(const Load& load) {
  const auto n = static_cast<double>(detail::count_of(load));
  const double mean = detail::sum_of(load) / n;
  if (!(mean > 0))
    return 0;
  double squares = 0;
  for (const auto value : load)
    squares += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
  return std::sqrt(squares / n) / mean;
}

/// −Σ q_i ln q_i in nats, q = load / Σ load: ln N at balance, 0 when one expert has everything or the load is 0. e to
/// this power is the effective number of experts.
template <number_list Load> [[nodiscard]] double entropy(const Load& load) {
  const double sum = detail::sum_of(load);
  double result = 0;
  for (const auto value : load) {
    const double q = static_cast<double>(value) / sum;
    if (q > 0)
      result -= q * std::log(q);
  }
  return result;
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
