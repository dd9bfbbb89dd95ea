// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>

#include <algorithm>

namespace hmoe::losses {

/// What the width h_i of an expert is measured in: the mean width (so that equal widths give load_balance exactly),
/// hidden units, or the largest width.
enum class width_unit { mean, raw, max };

/// L = N Σ_i M_i P̂_i with M_i = h_i f_i (HMoE, arXiv 2408.10681, section 3.3): wide experts cost more, so the router
/// learns to use narrow ones where they do. The gradient runs through P̂ only. Values with uniform P̂, in units of the
/// mean width: K at equal shares f_i = K/N; K times the harmonic over the arithmetic mean of the widths at shares
/// f_i ∝ 1/h_i, where routers settle. HMoE uses 0.1.
struct parameter_penalty {
  double coefficient = 0.1;
  width_unit unit = width_unit::mean;
  static constexpr std::string_view name = "parameter_penalty";

  /// N M_i of an expert that `count` tokens selected, with widths in units of `one`.
  [[nodiscard]] HMOE_HOST_DEVICE static double factor(double experts, double width, double one, double count,
                                                      double tokens) noexcept {
    return experts * (width / one) * detail::choice_rate(count, tokens);
  }
  /// The unit, given the sum of the widths of so many experts and the largest of them.
  [[nodiscard]] HMOE_HOST_DEVICE double unit_of(double sum, double largest, double experts) const noexcept {
    return unit == width_unit::raw ? 1 : unit == width_unit::max ? largest : sum / experts;
  }
  /// hmoe::error when the largest of the widths is no unit.
  void check(std::size_t experts, std::size_t largest) const {
    require(unit == width_unit::raw || experts == 0 || largest > 0, "parameter_penalty: all ", experts,
            " experts have width 0");
  }

  template <class T> double evaluate(routed_batch<T>& batch) const {
    const auto experts = static_cast<double>(batch.trace.experts_in_service());
    double sum = 0;
    std::size_t largest = 0;
    for (std::size_t e = 0; e < batch.widths.size(); ++e)
      if (batch.trace.is_in_service(e)) {
        sum += static_cast<double>(batch.widths[e]);
        largest = std::max(largest, batch.widths[e]);
      }
    check(batch.widths.size(), largest);
    const double one = unit_of(sum, static_cast<double>(largest), experts);
    return detail::mean_probability_loss(batch, coefficient, [&](std::size_t e) {
      return factor(experts, static_cast<double>(batch.widths[e]), one,
                    static_cast<double>(batch.trace.tokens_per_expert()[e]),
                    static_cast<double>(batch.trace.valid_tokens()));
    });
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
