// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>

#include <concepts>
#include <string_view>
#include <utility>

namespace hmoe::losses {

/// A user's own loss that is a mean over tokens, L = (1/T) Σ_t f(t), from a function of one token:
///   static constexpr std::string_view name
///   double operator()(logits, p, experts, scale, d_logits, d_p) const
/// with the token's logits [N] and probabilities [N] (vector_view<const T>), its experts (vector_view<const index_t>,
/// ascending, shared ones behind: ids of N and more), returns f(t) and adds scale · ∂f/∂logits to d_logits [N] and
/// scale · ∂f/∂p to d_p [N] (vector_view<T>); scale is a double. Marked HMOE_HOST_DEVICE, and with plain values only,
/// it runs on a GPU as it is. A router without probabilities (routing::unscored) hands out its logits as p.
template <class F> struct of_tokens {
  double coefficient = 1;
  F function{};
  static constexpr std::string_view name = F::name;

  template <class T> double evaluate(routed_batch<T>& batch) const {
    static_assert(std::invocable<const F&, vector_view<const T>, vector_view<const T>, vector_view<const index_t>,
                                 double, vector_view<T>, vector_view<T>>,
                  "hmoe::losses::of_tokens: F is not callable for one token as double operator()(vector_view<const T> "
                  "logits, vector_view<const T> p, vector_view<const index_t> experts, double scale, vector_view<T> "
                  "d_logits, vector_view<T> d_p) const");
    detail::require_gradient_sinks(batch);
    const auto tokens = static_cast<double>(batch.trace.valid_tokens());
    const auto& trace = std::as_const(batch.trace);
    const auto& assigned = std::as_const(batch.assigned);
    double value = 0;
    for (std::size_t t = 0; t < trace.tokens(); ++t)
      if (trace.is_valid(t))
        value += function(trace.logits().row(t), trace.probabilities().row(t), assigned.experts_of(t),
                          coefficient / tokens, batch.trace.d_logits().row(t), batch.trace.d_probabilities().row(t)) /
                 tokens;
    return value;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
