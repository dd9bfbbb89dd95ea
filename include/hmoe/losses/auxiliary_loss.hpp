// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>

#include <concepts>
#include <string_view>

namespace hmoe {

/// A loss on the routing of one layer and batch. Requirements:
///   coefficient                 how much it counts in the training loss
///   name                        under which an objective reports it
///   evaluate(batch) -> double   the loss without its coefficient; adds coefficient × its gradient to the sinks of
///                               the trace. Padding tokens have no share: T is trace.valid_tokens(). Nor have experts
///                               out of service: N is trace.experts_in_service(), and nobody reads their sinks
/// Calling it twice adds the gradient twice. With no tokens it is 0. An objective evaluates it only on a trace that has
/// sinks of the trace's shape, so it need not check them.
template <class L, class T>
concept auxiliary_loss = requires(const L& loss, routed_batch<T>& batch) {
  { loss.coefficient } -> std::convertible_to<double>;
  { L::name } -> std::convertible_to<std::string_view>;
  { loss.evaluate(batch) } -> std::convertible_to<double>;
};

namespace losses::detail {

template <class T> void require_gradient_sinks(const routed_batch<T>& batch) {
  const auto& trace = batch.trace;
  require(trace.d_probabilities().rows() == trace.tokens() && trace.d_logits().rows() == trace.tokens(),
          "an auxiliary loss needs a trace with gradient sinks for ", trace.tokens(), " tokens, this one has ",
          trace.d_probabilities().rows(), ": run forward with a tape");
}

/// hmoe::error where the router has no probabilities that a loss could read.
template <class T> void require_probabilities(const routed_batch<T>& batch) {
  require(batch.trace.has_probabilities(),
          "an auxiliary loss on probabilities, but this router has none: its scores are the logits themselves "
          "(routing::unscored, as in the presets gpt_oss, granite_moe and llama4). Wrap the loss, as in "
          "losses::of_softmax{losses::load_balance{1e-2}}, which takes the softmax of the logits");
}

/// ∂/∂P_{t,i} of factor_i·P̂_i, the same for all tokens.
[[nodiscard]] HMOE_HOST_DEVICE inline double mean_probability_slope(double factor, double tokens) noexcept {
  return factor / tokens;
}

/// Σ_i factor(i)·P̂_i with P̂_i = (1/T) Σ_t P_{t,i}, the form of all balancing losses; factor(i) counts as a constant,
/// so the gradient is factor(i)/T for each token. Sums and T leave padding tokens out.
template <class T, class Factor>
double mean_probability_loss(routed_batch<T>& batch, double coefficient, Factor factor) {
  require_gradient_sinks(batch);
  require_probabilities(batch);
  const auto p = batch.trace.probabilities();
  const auto d_p = batch.trace.d_probabilities();
  const auto tokens = static_cast<double>(batch.trace.valid_tokens());
  if (tokens == 0)
    return 0;
  double value = 0;
  for (std::size_t e = 0; e < p.cols(); ++e) {
    const double f = mean_probability_slope(factor(e), tokens);
    const auto gradient = static_cast<T>(coefficient * f);
    double sum = 0;
    for (std::size_t t = 0; t < p.rows(); ++t) {
      if (!batch.trace.is_valid(t))
        continue;
      sum += static_cast<double>(p(t, e));
      d_p(t, e) += gradient;
    }
    value += f * sum;
  }
  return value;
}

} // namespace losses::detail
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
