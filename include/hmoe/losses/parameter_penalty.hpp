// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/losses/auxiliary_loss.hpp>

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

  template <class T> double evaluate(routing_record<T>& record) const {
    const auto experts = static_cast<double>(record.trace.expert_count());
    const double one = unit_of(record.widths);
    return detail::mean_probability_loss(record, coefficient, [&](std::size_t e) {
      return experts * (static_cast<double>(record.widths[e]) / one) * detail::activation_rate(record, e);
    });
  }

private:
  [[nodiscard]] double unit_of(vector_view<const std::size_t> widths) const {
    if (unit == width_unit::raw || widths.empty())
      return 1;
    double sum = 0, largest = 0;
    for (const std::size_t h : widths) {
      sum += static_cast<double>(h);
      largest = std::max(largest, static_cast<double>(h));
    }
    require(largest > 0, "parameter_penalty: all ", widths.size(), " experts have width 0");
    return unit == width_unit::max ? largest : sum / static_cast<double>(widths.size());
  }
};

} // namespace hmoe::losses
