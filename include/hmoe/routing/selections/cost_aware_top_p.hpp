// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/checksum.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::routing {

/// What cost_aware_top_p does, over costs that somebody else owns: trivially copyable, for device code. Experts of
/// probability −∞ are out of service and never chosen.
struct cost_aware_top_p_view {
  vector_view<const double> costs;
  double p;
  double budget;

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> row,
                                                    vector_view<index_t> chosen) const noexcept {
    double sum = 0, spent = 0;
    std::size_t count = 0;
    index_t last = no_index;
    for (std::size_t i = 0; i < row.size() && !(sum >= p); ++i) {
      last = next(row, last);
      if (last == no_index)
        break;
      if (spent + costs[last] > budget)
        continue;
      chosen[count++] = last;
      sum += static_cast<double>(row[last]);
      spent += costs[last];
    }
    return count;
  }

private:
  /// More probability per cost comes first, free experts before all others; then more probability, then the lower id.
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE constexpr bool before(vector_view<const T> row, index_t a, index_t b) const noexcept {
    const double per_cost_a = per_cost(row, a), per_cost_b = per_cost(row, b);
    return per_cost_a == per_cost_b ? preferred(row[a], a, row[b], b) : preferred(per_cost_a, a, per_cost_b, b);
  }
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE constexpr double per_cost(vector_view<const T> row, index_t i) const noexcept {
    return costs[i] > 0 ? static_cast<double>(row[i]) / costs[i] : -least_preferred<double>;
  }
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE constexpr index_t next(vector_view<const T> row, index_t previous) const noexcept {
    index_t best = no_index;
    for (index_t i = 0; i < row.size(); ++i)
      if (row[i] != least_preferred<T> && (previous == no_index || before(row, previous, i)) &&
          (best == no_index || before(row, i, best)))
        best = i;
    return best;
  }
};

/// Buys probability where it is cheapest: experts in descending p_i / cost_i, skipping those that would exceed the
/// budget, until their probabilities sum to p or more. cost_i: what expert i costs, e.g. its parameters or FLOPs
/// (layer_cost::experts); budget: the most that one token may spend. The cheapest expert must fit, so that every token
/// gets one. Equal costs and no bound on the budget make it top_p. Ties: see cost_aware_top_p_view.
class cost_aware_top_p {
public:
  explicit cost_aware_top_p(std::vector<double> costs, double p,
                            double budget = std::numeric_limits<double>::infinity())
      : costs_(std::move(costs)), p_(p), budget_(budget) {
    require(p > 0 && p <= 1, "cost_aware_top_p with p = ", p, ": p must be in (0, 1]");
    for (std::size_t e = 0; e < costs_.size(); ++e)
      require(std::isfinite(costs_[e]) && costs_[e] >= 0, "cost_aware_top_p: expert ", e, " costs ", costs_[e],
              ": it must be finite and not below 0");
    std::vector<double> ascending = costs_;
    std::sort(ascending.begin(), ascending.end());
    require(ascending.empty() || budget >= ascending.front(), "cost_aware_top_p with a budget of ", budget,
            ": the cheapest expert costs ", ascending.empty() ? 0.0 : ascending.front());
    double sum = 0;
    for (const double cost : ascending)
      if (sum + cost <= budget) {
        sum += cost;
        ++most_;
      }
  }

  [[nodiscard]] double p() const noexcept { return p_; }
  [[nodiscard]] double budget() const noexcept { return budget_; }
  [[nodiscard]] cost_aware_top_p_view view() const noexcept { return {costs_, p_, budget_}; }
  /// The most experts that the budget can pay.
  [[nodiscard]] std::size_t max_selected(std::size_t) const noexcept { return most_; }
  /// A checksum of the costs.
  [[nodiscard]] std::string identity() const {
    checksum sum;
    sum.add(std::as_bytes(std::span(costs_)));
    return "checksum of costs = " + std::to_string(sum.value());
  }
  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("p", p_);
    visit("budget", budget_);
  }
  void validate(std::size_t experts) const {
    require(costs_.size() == experts, "cost_aware_top_p has ", costs_.size(), " costs for ", experts, " experts");
  }

  template <class T> std::size_t operator()(vector_view<const T> row, vector_view<index_t> chosen) const noexcept {
    return view()(row, chosen);
  }

private:
  std::vector<double> costs_;
  double p_, budget_;
  std::size_t most_ = 0;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
