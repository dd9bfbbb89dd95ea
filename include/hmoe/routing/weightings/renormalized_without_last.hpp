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

/// MoE++ (arXiv 2410.07348, its code): the last expert, which returns zero, gets weight 0, and the others
/// w_i = p_i / max(Σ_{chosen, not last} p_j, ε). Where ε is 0 when rounded to T and the sum is, too, the weights are 0;
/// where the divisor is 0 or subnormal the gradient is 0.
struct renormalized_without_last {
  double epsilon = 0x1p-23; ///< the rounding unit of float, as in the code

  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("epsilon", epsilon); }
  void validate(std::size_t experts) const {
    require(std::isfinite(epsilon) && epsilon > 0, "renormalized_without_last with epsilon = ", epsilon,
            ": it must be finite and above 0");
    require(experts >= 2, "renormalized_without_last for ", experts, " expert: there must be at least 2");
  }
  template <class T>
  HMOE_HOST_DEVICE void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                vector_view<T> w) const noexcept {
    const T sum = total(p, chosen), e = static_cast<T>(epsilon), divisor = sum < e ? e : sum;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = chosen[i] + 1 == p.size() || divisor == T(0) ? T(0) : p[chosen[i]] / divisor;
  }
  template <class T, class Values>
  HMOE_HOST_DEVICE void backward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                 const Values& w, const Values& dw, vector_view<T>, vector_view<T> d_p) const noexcept {
    const T sum = total(p, chosen), e = static_cast<T>(epsilon), divisor = sum < e ? e : sum;
    if (is_tiny(divisor))
      return;
    T dot = 0;
    if (!(sum < e))
      for (std::size_t i = 0; i < chosen.size(); ++i)
        dot += dw[i] * w[i]; // the last one's w is 0
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i] + 1 != p.size())
        d_p[chosen[i]] += (dw[i] - dot) / divisor;
  }

private:
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE static T total(vector_view<const T> p, vector_view<const index_t> chosen) noexcept {
    T sum = 0;
    for (const index_t e : chosen)
      sum += e + 1 == p.size() ? T(0) : p[e];
    return sum;
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
