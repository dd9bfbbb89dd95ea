// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/gates.hpp>
#include <hmoe/losses/small_memory.hpp>
#include <hmoe/losses/squared_variation.hpp>

#include <utility>

namespace hmoe::losses {

/// L = CV²(importance), importance_i = Σ_t g_{t,i}: the squared coefficient of variation, with the unbiased variance
/// and 1e-10 added to the squared mean, of how much weight each expert gets (Shazeer et al. 2017, arXiv 1701.06538 eq.
/// 7). `gates` says what g is: the weights of the selected experts (Shazeer, FastMoE) or all probabilities (V-MoE,
/// Tutel). Value at balance: 0. The gradient runs through the gates; which experts are selected is constant.
struct importance {
  double coefficient = 0.1;
  gate_values gates = gate_values::renormalized;
  static constexpr std::string_view name = "importance";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    detail::require_probabilities(batch);
    const std::size_t tokens = batch.trace.tokens(), experts = batch.trace.expert_count();
    detail::small_memory memory;
    buffer<double> sums = memory.zeros<double>(experts), slopes = memory.zeros<double>(experts);
    for (std::size_t t = 0; t < tokens; ++t)
      detail::add_gates(batch, gates, t, sums.view());
    const double value = detail::squared_variation(std::as_const(sums).view(), slopes.view(),
                                                   [&](std::size_t e) { return batch.trace.is_in_service(e); });
    for (double& slope : slopes)
      slope *= coefficient;
    for (std::size_t t = 0; t < tokens; ++t)
      detail::add_gates_gradient(batch, gates, t, std::as_const(slopes).view());
    return value;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
