// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/expert_groups.hpp>
#include <hmoe/losses/gates.hpp>
#include <hmoe/losses/small_memory.hpp>

#include <utility>
#include <vector>

namespace hmoe::losses {

/// The intra-group loss of MoHGE: the Switch loss on the gates of the selected experts, with the number of experts
/// that a token could still choose from once its groups are chosen in place of N:
///   L = N (k_g / N_g) Σ_i (n_i / Σ n) Ĝ_i,   Ĝ_i = (1/T) Σ_t g_{t,i}
/// with n_i the tokens of expert i and k_g the mean number of groups a token has an expert in, as the released code
/// does it (the paper leaves it open). Value at balance with renormalised gates: k_g / N_g. The gradient runs through
/// the gates only.
struct intra_group_balance {
  double coefficient = 1e-2;
  std::vector<std::size_t> group_sizes{}; ///< runs of ids; empty: runs of equal width
  gate_values gates = gate_values::renormalized;
  static constexpr std::string_view name = "intra_group_balance";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    detail::require_probabilities(batch);
    const std::size_t tokens = batch.trace.tokens(), experts = batch.trace.expert_count();
    detail::small_memory memory;
    buffer<index_t> group_of = memory.zeros<index_t>(experts);
    const std::size_t groups = detail::assign_groups(batch.widths, group_sizes, group_of.view());
    buffer<double> n = memory.zeros<double>(groups), slopes = memory.zeros<double>(experts);
    buffer<double> sums = memory.zeros<double>(experts);
    const double pairs = detail::count_groups(batch, std::as_const(group_of).view(), n.view());
    const double total = detail::count_choices(batch, balance_counts::all_choices, 0, tokens, slopes.view());
    if (!(total > 0))
      return 0;
    const double rows = static_cast<double>(batch.trace.valid_tokens());
    const auto serving = static_cast<double>(batch.trace.experts_in_service());
    const std::size_t serving_groups = detail::groups_in_service(batch.trace, std::as_const(group_of).view());
    const double candidates = serving * (pairs / rows) / static_cast<double>(serving_groups);
    double value = 0;
    for (std::size_t t = 0; t < tokens; ++t)
      detail::add_gates(batch, gates, t, sums.view());
    for (std::size_t e = 0; e < experts; ++e) {
      const double slope = candidates * slopes[e] / total / rows;
      value += slope * sums[e];
      slopes[e] = coefficient * slope;
    }
    for (std::size_t t = 0; t < tokens; ++t)
      detail::add_gates_gradient(batch, gates, t, std::as_const(slopes).view());
    return value;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
