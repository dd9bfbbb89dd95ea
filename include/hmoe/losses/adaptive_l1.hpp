// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>

namespace hmoe::losses {

/// The sparsity loss of ReMoE (arXiv 2412.14711) on ReLU scores R = probabilities of the trace, of which the positive
/// ones are active:
///   L = (1/T) Σ_t Σ_i f_i R_{t,i},   f_i = N / (K T) · Σ_t 1{R_{t,i} > 0}
/// the L1 norm of the scores, heavier for experts that are active more often than the target K/N of the tokens. With
/// `balanced` off f_i = 1, the plain L1 norm. The gradient runs through R only. Value when every expert is active on
/// K/N of the tokens: the mean L1 norm of a token's scores. The coefficient is λ, which sparsity_controller adapts.
struct adaptive_l1 {
  double coefficient = 1e-8;
  double target_experts = 1; ///< K, active experts per token wanted
  bool balanced = true;
  static constexpr std::string_view name = "adaptive_l1";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    require(target_experts > 0, "adaptive_l1: the target is ", target_experts,
            " experts per token, it must be positive");
    const auto p = batch.trace.probabilities();
    const double scale = static_cast<double>(batch.trace.experts_in_service()) /
                         (target_experts * static_cast<double>(batch.trace.valid_tokens()));
    return detail::mean_probability_loss(batch, coefficient, [&](std::size_t e) {
      if (!balanced)
        return 1.0;
      double active = 0;
      for (std::size_t t = 0; t < p.rows(); ++t)
        active += batch.trace.is_valid(t) && p(t, e) > 0 ? 1 : 0;
      return scale * active;
    });
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
