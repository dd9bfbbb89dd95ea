// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <cmath>
#include <cstddef>
#include <utility>

namespace hmoe::routing {

/// Another weighting v over its norm among the chosen experts: w_i = v_i / D, D = (Σ_j |v_j|^q)^{1/q} + ε, or
/// max((Σ_j |v_j|^q)^{1/q}, ε), q = order (DBRX's moe_normalize_expert_weights is q, with v = p). normalized<>{} is
/// `renormalized` for probabilities. Where D is 0 the weights are 0; where it is 0 or subnormal the gradient is 0.
template <class Weighting = raw> struct normalized {
  double order = 1;
  double epsilon = 0;
  epsilon_use use = epsilon_use::added;
  Weighting inner{};

  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("order", order);
    visit("epsilon", epsilon);
    visit("use", use);
  }
  void validate(std::size_t experts) const {
    require(std::isfinite(order) && order >= 1, "normalized with order = ", order,
            ": the order of the norm must be finite and at least 1");
    require(std::isfinite(epsilon) && epsilon >= 0, "normalized with epsilon = ", epsilon,
            ": it must be finite and not below 0");
    if constexpr (requires { inner.validate(experts); })
      inner.validate(experts);
  }
  [[nodiscard]] std::size_t scratch_size(std::size_t experts) const {
    return 2 * experts + weighting_scratch(inner, experts);
  }

  template <class T>
  void forward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, vector_view<T> w,
               vector_view<T> scratch) const {
    routing::weigh(inner, logits, p, chosen, w, scratch);
    const T divisor = bounded(norm(vector_view<const T>(w)));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = divisor == T(0) ? T(0) : w[i] / divisor;
  }
  /// ∂L/∂v_i = (dw_i − Σ_j dw_j w_j · sign(v_i) (|v_i| / ‖v‖)^{q−1}) / D, and without the sum where D is a clamped one
  template <class T, class Values>
  void backward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, const Values& w,
                const Values& dw, vector_view<T> d_logits, vector_view<T> d_p, vector_view<T> scratch) const {
    const auto [v, dv] = unweighted(logits, p, chosen, w, dw, scratch);
    if (dv.size() == chosen.size())
      routing::weigh_backward(inner, logits, p, chosen, v, dv, d_logits, d_p, rest(logits.size(), scratch));
  }

  template <class Visitor>
  void visit_parameters(Visitor&& visit)
    requires learned_weighting<Weighting>
  {
    inner.visit_parameters(visit);
  }
  template <class... Arguments>
  void initialize(const Arguments&... arguments)
    requires learned_weighting<Weighting>
  {
    inner.initialize(arguments...);
  }
  template <class T, class Values>
  void parameter_gradients(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                           const Values& w, const Values& dw, normalized& gradients, vector_view<T> scratch) const
    requires learned_weighting<Weighting>
  {
    const auto [v, dv] = unweighted(logits, p, chosen, w, dw, scratch);
    if (dv.size() == chosen.size())
      routing::weigh_parameters(inner, logits, p, chosen, v, dv, gradients.inner, rest(logits.size(), scratch));
  }

private:
  template <class T> [[nodiscard]] static vector_view<T> rest(std::size_t experts, vector_view<T> scratch) {
    return scratch.subview(2 * experts, scratch.size() - 2 * experts);
  }
  /// v and ∂L/∂v, in scratch; the latter is empty where there is no gradient.
  template <class T, class Values>
  [[nodiscard]] std::pair<vector_view<const T>, vector_view<const T>>
  unweighted(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, const Values& w,
             const Values& dw, vector_view<T> scratch) const {
    const std::size_t n = logits.size();
    const vector_view<T> v = scratch.subview(0, chosen.size()), dv = scratch.subview(n, chosen.size());
    routing::weigh(inner, logits, p, chosen, v, rest(n, scratch));
    const T length = norm(vector_view<const T>(v)), divisor = bounded(length);
    if (is_tiny(divisor))
      return {v, {}};
    T dot = 0;
    if (length != T(0) && (use == epsilon_use::added || !(length < static_cast<T>(epsilon))))
      for (std::size_t i = 0; i < chosen.size(); ++i)
        dot += dw[i] * w[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      dv[i] = (dw[i] - (dot == T(0) ? T(0) : dot * slope(v[i], length))) / divisor;
    return {v, dv};
  }
  template <class T> [[nodiscard]] T bounded(T length) const noexcept {
    const T e = static_cast<T>(epsilon);
    return use == epsilon_use::added ? length + e : length < e ? e : length;
  }
  template <class T> [[nodiscard]] T norm(vector_view<const T> v) const noexcept {
    T sum = 0;
    for (const T value : v)
      sum += order == 1   ? std::abs(value)
             : order == 2 ? value * value
                          : std::pow(std::abs(value), static_cast<T>(order));
    return order == 1 ? sum : order == 2 ? std::sqrt(sum) : std::pow(sum, static_cast<T>(1 / order));
  }
  /// ∂‖v‖/∂v_i
  template <class T> [[nodiscard]] T slope(T value, T length) const noexcept {
    const T size = std::abs(value) / length;
    const T power = order == 1 ? T(1) : order == 2 ? size : std::pow(size, static_cast<T>(order - 1));
    return value < T(0) ? -power : value == T(0) ? T(0) : power;
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
