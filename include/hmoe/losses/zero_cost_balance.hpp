// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>

#include <vector>

namespace hmoe::losses {

/// L = Σ_i η_i f_i P̂_i with η_i = 1 for experts that compute and τ for those that cost nothing (zero, identity,
/// constant), which with τ < 1 draws tokens to the latter (MoE++, arXiv 2410.07348: τ 0.75, coefficient 1e-2). There
/// is no factor N. f and P̂ as in load_balance; the gradient runs through P̂ only. Value for f = K/N and P = 1/N:
/// K mean(η) / N.
struct zero_cost_balance {
  double coefficient = 1e-2;
  double tau = 0.75;         ///< η of experts of width 0
  std::vector<double> eta{}; ///< [N] to say it for each expert; empty: 1, or tau where the width is 0
  static constexpr std::string_view name = "zero_cost_balance";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    require(eta.empty() || eta.size() == batch.trace.expert_count(), "zero_cost_balance: eta has ", eta.size(),
            " values for ", batch.trace.expert_count(), " experts");
    return detail::mean_probability_loss(batch, coefficient, [&](std::size_t e) {
      const double weight = !eta.empty() ? eta[e] : batch.widths[e] == 0 ? tau : 1;
      return weight * detail::choice_rate(static_cast<double>(batch.trace.tokens_per_expert()[e]),
                                          static_cast<double>(batch.trace.valid_tokens()));
    });
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
