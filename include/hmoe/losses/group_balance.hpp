// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/expert_groups.hpp>
#include <hmoe/losses/small_memory.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::losses {

/// The group loss of MoHGE, where experts of one width form a group and wide groups cost more:
///   L = N_g Σ_g w_g (n_g / Σ n) P̂_g,   w_g = (h_g − h_min + Δ) / Δ,   P̂_g = (1/T) Σ_t Σ_{i∈g} P_{t,i}
/// with n_g the tokens that have an expert in group g, so Σ n = T k_g. This is the released code's
/// N_g / (T² k_g) · Σ_g n_g w_g Σ_t p_{t,g}, with the probability of a group as the sum over its experts. The gradient
/// runs through P̂ only. Value at balance (n and P̂ uniform): the mean of w_g; 1 when all widths are equal.
/// MoHGE uses it in the second half of training only: set `coefficient` accordingly.
struct group_balance {
  double coefficient = 1e-2;
  std::vector<std::size_t> group_sizes{}; ///< runs of ids; empty: runs of equal width
  double step = 0;                        ///< Δ in hidden units; 0: the smallest difference between group widths
  static constexpr std::string_view name = "group_balance";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    detail::small_memory memory;
    const std::size_t experts = batch.trace.expert_count();
    buffer<index_t> group_of = memory.zeros<index_t>(experts);
    const std::size_t groups = detail::assign_groups(batch.widths, group_sizes, group_of.view());
    buffer<double> weight = memory.zeros<double>(groups), n = memory.zeros<double>(groups);
    weigh_groups(batch, std::as_const(group_of).view(), weight.view());
    const auto serving = static_cast<double>(detail::groups_in_service(batch.trace, std::as_const(group_of).view()));
    const double total = detail::count_groups(batch, std::as_const(group_of).view(), n.view());
    return detail::mean_probability_loss(batch, coefficient, [&](std::size_t e) {
      const std::size_t g = group_of[e];
      return total > 0 ? serving * weight[g] * n[g] / total : 0;
    });
  }

private:
  /// weight[g] = w_g; the width of a group is the mean over its experts in service, infinite where it has none.
  template <class T>
  void weigh_groups(const routed_batch<T>& batch, vector_view<const index_t> group_of,
                    vector_view<double> weight) const {
    require(step >= 0, "group_balance: the width step is ", step, ", it must not be negative");
    for (std::size_t g = 0; g < weight.size(); ++g) {
      double sum = 0, count = 0;
      for (std::size_t e = 0; e < group_of.size(); ++e)
        if (group_of[e] == g && batch.trace.is_in_service(e)) {
          sum += static_cast<double>(batch.widths[e]);
          count += 1;
        }
      weight[g] = count > 0 ? sum / count : std::numeric_limits<double>::infinity();
    }
    const double narrowest = weight.empty() ? 0 : *std::min_element(weight.begin(), weight.end());
    const double delta = step > 0 ? step : smallest_difference(weight);
    for (double& w : weight)
      w = std::isfinite(w) ? (w - narrowest + delta) / delta : 0;
  }
  /// The smallest positive difference between two values; 1 when there is none.
  static double smallest_difference(vector_view<const double> values) {
    double smallest = std::numeric_limits<double>::infinity();
    for (const double a : values)
      for (const double b : values)
        if (a > b && std::isfinite(a))
          smallest = std::min(smallest, a - b);
    return smallest < std::numeric_limits<double>::infinity() ? smallest : 1;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
