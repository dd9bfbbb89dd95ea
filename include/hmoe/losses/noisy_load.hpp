// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/losses/load_variation.hpp>

#include <utility>

namespace hmoe::losses {

/// The load loss of Shazeer et al. 2017 (arXiv 1701.06538 eq. 9–10) for routers with learned noise, whose logits are
/// z = clean + n σ with σ = softplus(r) + ε: load_i = Σ_t Φ((clean_i − θ_i) / σ_i), θ among the noisy logits. It reads
/// r and n from trace.score_saved(), at the columns [column, column + N) and the N behind them, where routing::noisy
/// puts them, and adds the gradient by r at constant z to trace.d_score_saved(). `epsilon` must be the router's. A
/// batch that was routed without noise is an hmoe::error.
struct noisy_load {
  double coefficient = 0.1;
  double epsilon = 0;
  std::size_t column = 0; ///< the first saved value of routing::noisy: the wrapped score's saved_per_token()
  static constexpr std::string_view name = "noisy_load";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    const std::size_t experts = batch.trace.expert_count();
    const auto saved = std::as_const(batch.trace).score_saved();
    const auto sink = batch.trace.d_score_saved();
    require(
        batch.trace.tokens() == 0 || batch.trace.inputs().noise,
        "noisy_load needs a batch that was routed with noise: set routing_inputs::noise, or use losses::smooth_load");
    require(saved.cols() >= column + 2 * experts, "noisy_load reads 2 x ", experts,
            " saved values of a token from column ", column, " on, the router saved ", saved.cols(),
            ": is its score a routing::noisy?");
    return detail::load_variation(
        batch, coefficient,
        [&](std::size_t t, std::size_t i) {
          const auto r = static_cast<double>(saved(t, column + i));
          return std::pair{hmoe::softplus(r) + epsilon, static_cast<double>(saved(t, column + experts + i))};
        },
        [&](std::size_t t, std::size_t i, double by_sigma) {
          const auto r = static_cast<double>(saved(t, column + i));
          sink(t, column + i) += static_cast<T>(by_sigma * hmoe::logistic(r));
        });
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
