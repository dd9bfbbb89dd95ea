// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>

#include <vector>

namespace hmoe::losses {

/// L = Σ_i P̂_i c_i / mean(c), the expected cost of a token's probability mass in units of the mean cost: it looks at
/// probabilities only, not at who is selected (the compute loss of megablocks-variable, coefficient 4e-3). c are
/// widths, or what you give, for instance FLOPs. Value for uniform probabilities and for equal costs: 1. The gradient
/// is c_i / mean(c) / T; nothing is held constant. Not a balancing loss by itself: its minimum is the cheapest expert.
struct compute_cost {
  double coefficient = 4e-3;
  std::vector<double> costs{}; ///< [N]; empty: the widths
  static constexpr std::string_view name = "compute_cost";

  /// c_i / mean(c)
  [[nodiscard]] HMOE_HOST_DEVICE static double factor(double cost, double mean) noexcept { return cost / mean; }
  /// hmoe::error unless there is a cost for each expert, or none are given.
  void check_costs(std::size_t experts) const {
    require(costs.empty() || costs.size() == experts, "compute_cost: there are ", costs.size(), " costs for ", experts,
            " experts");
  }
  /// hmoe::error unless the mean cost is positive.
  static void check_mean(std::size_t experts, double mean) {
    require(mean > 0, "compute_cost: the mean cost of ", experts, " experts is ", mean, ", it must be positive");
  }

  template <class T> double evaluate(routed_batch<T>& batch) const {
    const std::size_t experts = batch.trace.expert_count();
    check_costs(experts);
    double sum = 0;
    for (std::size_t e = 0; e < experts; ++e)
      sum += batch.trace.is_in_service(e) ? cost_of(batch, e) : 0;
    const double mean = sum / static_cast<double>(batch.trace.experts_in_service());
    check_mean(experts, mean);
    return detail::mean_probability_loss(batch, coefficient,
                                         [&](std::size_t e) { return factor(cost_of(batch, e), mean); });
  }

private:
  template <class T> [[nodiscard]] double cost_of(const routed_batch<T>& batch, std::size_t e) const {
    return costs.empty() ? static_cast<double>(batch.widths[e]) : costs[e];
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
