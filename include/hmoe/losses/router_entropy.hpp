// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>

#include <cmath>

namespace hmoe::losses {

/// L = (1/T) Σ_t −Σ_i P_{t,i} ln P_{t,i}: minimising it sharpens the router, so that top-p needs fewer experts
/// (Huang et al. 2024, arXiv 2403.07652). HMoE (arXiv 2408.10681) prints the sum with the opposite sign, which would
/// flatten P against the purpose it states; this is the purpose. Value for uniform probabilities: ln N; for certain
/// ones: 0. HMoE uses 3e-2.
struct router_entropy {
  double coefficient = 3e-2;
  static constexpr std::string_view name = "router_entropy";

  /// What one probability adds to the loss, and coefficient × its derivative.
  struct share {
    double value, gradient;
  };
  /// −p ln p is 0 at p = 0, where its slope is infinite: the smallest normal number stands in for it there. NaN stays.
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE share share_of(T probability, double tokens) const noexcept {
    const auto p = static_cast<double>(probability);
    const double log_p = std::log(p < double{smallest_normal<T>} ? double{smallest_normal<T>} : p);
    return {-(p * log_p / tokens), -coefficient * (log_p + 1) / tokens};
  }

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    detail::require_probabilities(batch);
    const auto p = batch.trace.probabilities();
    const auto d_p = batch.trace.d_probabilities();
    const auto tokens = static_cast<double>(batch.trace.valid_tokens());
    double value = 0;
    for (std::size_t t = 0; t < p.rows(); ++t)
      for (std::size_t e = 0; e < p.cols() && batch.trace.is_valid(t); ++e) {
        const share of = share_of<T>(p(t, e), tokens);
        value += of.value;
        d_p(t, e) += static_cast<T>(of.gradient);
      }
    return value;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
