// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/load_variation.hpp>

#include <utility>

namespace hmoe::losses {

/// L = CV²(load) with a smooth stand-in for the number of tokens of each expert: load_i = Σ_t Φ((z_{t,i} − θ_{t,i}) /
/// σ), the probability that expert i would be selected if normal noise of standard deviation σ were drawn anew for its
/// logit alone; θ is the logit that it has to beat. CV² as in importance. σ is constant: 1/N by default (V-MoE, arXiv
/// 2106.05974; Tutel's gate_noise/N). The logits count as the clean ones. A token that selects all experts counts 1 for
/// each, one that selects none 0. Value at balance: 0. The gradient goes to the logits, θ's included; which experts are
/// selected is constant.
struct smooth_load {
  double coefficient = 0.1;
  double stddev = 0; ///< σ in units of the logits; 0: 1/N
  static constexpr std::string_view name = "smooth_load";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    require(stddev >= 0, "smooth_load: the standard deviation is ", stddev, ", it must not be negative");
    const double sigma = stddev > 0 ? stddev : 1 / static_cast<double>(batch.trace.experts_in_service());
    return detail::load_variation(
        batch, coefficient, [&](std::size_t, std::size_t) { return std::pair{sigma, 0.0}; },
        [](std::size_t, std::size_t, double) {});
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
