// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

namespace detail {
/// values[i] · factor, computed when asked for.
template <class T> struct scaled_values {
  vector_view<const T> values;
  T factor;
  [[nodiscard]] HMOE_HOST_DEVICE T operator[](std::size_t i) const noexcept { return values[i] * factor; }
};
} // namespace detail

/// Another weighting times a constant, the routed_scaling_factor of DeepSeek-V2, -V3 and LongCat-Flash: w = factor · v.
/// The factor is a constant of the model and must be given: scaled<>{.factor = 2.5}.
template <class Weighting = renormalized> struct scaled {
  double factor = 0; ///< 0: not given, an hmoe::error
  Weighting inner{};

  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("factor", factor); }
  void validate(std::size_t experts) const {
    require(std::isfinite(factor) && factor != 0, "scaled with factor = ", factor,
            ": give the model's factor, finite and not 0 (1 where it has none), as in {.factor = 2.5}");
    if constexpr (requires { inner.validate(experts); })
      inner.validate(experts);
  }
  /// Of the inner one, which some have (hmoe/routing/weighting.hpp).
  [[nodiscard]] std::size_t scratch_size(std::size_t experts) const
    requires hmoe::detail::wants_weighting_scratch<Weighting>
  {
    return inner.scratch_size(experts);
  }
  template <class T, class... Scratch>
  HMOE_HOST_DEVICE void forward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                                vector_view<T> w, Scratch... scratch) const noexcept {
    inner.forward(logits, p, chosen, w, scratch...);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] *= static_cast<T>(factor);
  }
  /// inner.backward with v = w / factor and ∂L/∂v = factor ∂L/∂w; nothing where the factor is 0 or subnormal in T
  template <class T, class... Scratch>
  HMOE_HOST_DEVICE void backward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                                 vector_view<const T> w, vector_view<const T> dw, vector_view<T> d_logits,
                                 vector_view<T> d_p, Scratch... scratch) const noexcept {
    using values = detail::scaled_values<T>;
    static_assert(
        requires(values v) { inner.backward(logits, p, chosen, v, v, d_logits, d_p, scratch...); },
        "hmoe::routing::scaled: Weighting::backward does not take computed values: make it a template "
        "<class T, class Values> whose w and dw are const Values&, used with operator[] only");
    if (is_tiny(static_cast<T>(factor)))
      return;
    inner.backward(logits, p, chosen, values{w, T(1) / static_cast<T>(factor)}, values{dw, static_cast<T>(factor)},
                   d_logits, d_p, scratch...);
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
  template <class T, class... Scratch>
  void parameter_gradients(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
                           vector_view<const T> w, vector_view<const T> dw, scaled& gradients, Scratch... scratch) const
    requires learned_weighting<Weighting>
  {
    using values = detail::scaled_values<T>;
    if (!is_tiny(static_cast<T>(factor)))
      inner.parameter_gradients(logits, p, chosen, values{w, T(1) / static_cast<T>(factor)},
                                values{dw, static_cast<T>(factor)}, gradients.inner, scratch...);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
