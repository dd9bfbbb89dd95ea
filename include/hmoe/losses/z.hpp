// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>

#include <algorithm>
#include <cmath>

namespace hmoe::losses {

/// L = (1/T) Σ_t (ln Σ_i e^{z_{t,i}})², which keeps logits small (ST-MoE, arXiv 2202.08906 eq. 5). The gradient goes to
/// the logits: (2/T) · lse_t · softmax(z_t)_i. Value at balanced logits z = 0: (ln N)². ST-MoE uses 1e-3.
struct z {
  double coefficient = 1e-3;
  static constexpr std::string_view name = "z";

  /// ln Σ_i e^{z_i} = largest + ln Σ_i e^{z_i − largest}: a summand, and the whole.
  [[nodiscard]] HMOE_HOST_DEVICE static double summand(double logit, double largest) noexcept {
    return std::exp(logit - largest);
  }
  [[nodiscard]] HMOE_HOST_DEVICE static double log_sum(double largest, double sum) noexcept {
    return largest + std::log(sum);
  }
  /// What a token with that ln Σ e^z adds to the loss, and coefficient × the derivative by one of its logits.
  [[nodiscard]] HMOE_HOST_DEVICE static double share_of(double log_sum, double tokens) noexcept {
    return log_sum * log_sum / tokens;
  }
  [[nodiscard]] HMOE_HOST_DEVICE double gradient_of(double logit, double log_sum, double tokens) const noexcept {
    return coefficient * 2 / tokens * log_sum * std::exp(logit - log_sum);
  }

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    const auto logits = batch.trace.logits();
    const auto d_logits = batch.trace.d_logits();
    const auto tokens = static_cast<double>(batch.trace.valid_tokens());
    double value = 0;
    for (std::size_t t = 0; t < logits.rows(); ++t) {
      if (!batch.trace.is_valid(t))
        continue;
      const auto row = logits.row(t);
      const auto largest = static_cast<double>(*std::max_element(row.begin(), row.end()));
      double sum = 0;
      for (const T logit : row)
        sum += summand(static_cast<double>(logit), largest);
      const double whole = log_sum(largest, sum);
      value += share_of(whole, tokens);
      for (std::size_t e = 0; e < row.size(); ++e)
        d_logits(t, e) += static_cast<T>(gradient_of(static_cast<double>(row[e]), whole, tokens));
    }
    return value;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
