// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

/// How renormalized keeps away from small sums: ε is added to the sum, or the sum counts as ε where it is smaller.
enum class epsilon_use { added, clamped };

/// w_i = p_i / Σ_chosen p_j: Mixtral, and HMoE for both of its routers. With an ε: p_i / (Σ p_j + ε), or
/// p_i / max(Σ p_j, ε). Where the divisor is 0 (all chosen p are, or sums of both signs cancel) the weights are 0.
/// Where it is 0 or subnormal the gradient is 0, since 1/divisor has no finite value. With one chosen expert and ε = 0
/// the weight is 1 whatever the logits are, so this weighting then trains no router: take `raw` for k = 1.
struct renormalized {
  double epsilon = 0;
  epsilon_use use = epsilon_use::added;

  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("epsilon", epsilon);
    visit("use", use);
  }
  void validate(std::size_t) const {
    require(std::isfinite(epsilon) && epsilon >= 0, "renormalized with epsilon = ", epsilon,
            ": it must be finite and not below 0");
  }
  template <class T>
  HMOE_HOST_DEVICE void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                vector_view<T> w) const noexcept {
    const T divisor = bounded(total(p, chosen));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = divisor == T(0) ? T(0) : p[chosen[i]] / divisor;
  }
  /// ∂L/∂p_i = (dw_i − Σ_j dw_j w_j) / divisor, and without the sum where the divisor is a clamped one
  template <class T, class Values>
  HMOE_HOST_DEVICE void backward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                 const Values& w, const Values& dw, vector_view<T>, vector_view<T> d_p) const noexcept {
    const T sum = total(p, chosen), divisor = bounded(sum);
    if (is_tiny(divisor))
      return;
    T dot = 0;
    if (use == epsilon_use::added || !(sum < static_cast<T>(epsilon)))
      for (std::size_t i = 0; i < chosen.size(); ++i)
        dot += dw[i] * w[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += (dw[i] - dot) / divisor;
  }

private:
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T bounded(T sum) const noexcept {
    const T e = static_cast<T>(epsilon);
    return use == epsilon_use::added ? sum + e : sum < e ? e : sum;
  }
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE static T total(vector_view<const T> p, vector_view<const index_t> chosen) noexcept {
    T sum = 0;
    for (const index_t e : chosen)
      sum += p[e];
    return sum;
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
