// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/small_memory.hpp>

namespace hmoe::losses {

/// L = N Σ_i f_i P̂_i with f_i = (1/T) Σ_t 1{i selected by t}, P̂_i = (1/T) Σ_t P_{t,i} (Switch Transformer,
/// arXiv 2101.03961 eq. 4, with every selected expert counted as in HMoE, arXiv 2408.10681). The gradient runs
/// through P̂ only. At perfect balance (f_i = K/N for K experts a token, ΣP = 1) the value is K. HMoE's homogeneous
/// baseline uses 1e-2.
/// The other conventions: `counts` says which choices f counts, `normalization` whether the value at balance is the
/// number of choices that count (to_k) or 1 (to_one, f divided by its sum). With one choice a token all four agree.
struct load_balance {
  double coefficient = 1e-2;
  balance_counts counts = balance_counts::all_choices;
  balance_normalization normalization = balance_normalization::to_k;
  static constexpr std::string_view name = "load_balance";

  /// N f_i of an expert that was chosen `count` times.
  [[nodiscard]] HMOE_HOST_DEVICE static double factor(double experts, double count, double divisor) noexcept {
    return experts * detail::choice_rate(count, divisor);
  }

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    const std::size_t tokens = batch.trace.tokens(), experts = batch.trace.expert_count();
    detail::small_memory memory;
    buffer<double> n = memory.zeros<double>(experts);
    const double total = detail::count_choices(batch, counts, 0, tokens, n.view());
    const double divisor =
        detail::choice_divisor(normalization, static_cast<double>(batch.trace.valid_tokens()), total);
    const auto serving = static_cast<double>(batch.trace.experts_in_service());
    return detail::mean_probability_loss(batch, coefficient,
                                         [&](std::size_t e) { return factor(serving, n[e], divisor); });
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
