// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/losses/auxiliary_loss.hpp>

namespace hmoe::losses {

/// L = N Σ_i f_i P̂_i with f_i = (1/T) Σ_t 1{i selected by t}, P̂_i = (1/T) Σ_t P_{t,i} (Switch Transformer,
/// arXiv 2101.03961 eq. 4, with every selected expert counted as in HMoE, arXiv 2408.10681). The gradient runs
/// through P̂ only. At perfect balance (f_i = K/N for K experts a token, ΣP = 1) the value is K. HMoE's homogeneous
/// baseline uses 1e-2.
struct load_balance {
  double coefficient = 1e-2;
  static constexpr std::string_view name = "load_balance";

  template <class T> double evaluate(routing_record<T>& record) const {
    const auto experts = static_cast<double>(record.trace.expert_count());
    return detail::mean_probability_loss(record, coefficient,
                                         [&](std::size_t e) { return experts * detail::activation_rate(record, e); });
  }
};

} // namespace hmoe::losses
