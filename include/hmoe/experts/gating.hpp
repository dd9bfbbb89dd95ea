// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/experts/activation.hpp>

#include <cmath>
#include <concepts>
#include <type_traits>

namespace hmoe {

/// The step between the two projections of a GLU, elementwise in the gate value g and the up value u, for float and
/// double:
///   value(g, u)                    a(g, u)
///   backward(g, u, da, dg, du)     dg = da ∂a/∂g, du = da ∂a/∂u
/// and, where it applies, validate(), which throws hmoe::error when its parameters make no sense.
template <class G>
concept gating = std::copyable<G> && std::default_initializable<G> && requires(const G& g, float f, double d) {
  { g.value(f, f) } -> std::same_as<float>;
  { g.value(d, d) } -> std::same_as<double>;
  g.backward(f, f, f, f, f);
  g.backward(d, d, d, d, d);
};

namespace experts {

/// a = act(g) · u
template <activation Activation> struct gated {
  template <class T> HMOE_HOST_DEVICE static T value(T g, T u) noexcept { return Activation::value(g) * u; }
  template <class T> HMOE_HOST_DEVICE static void backward(T g, T u, T da, T& dg, T& du) noexcept {
    dg = da * u * Activation::derivative(g);
    du = da * Activation::value(g);
  }
};

namespace detail {
/// min(g, limit) and u clamped to ±limit, by comparisons that let NaN through.
template <class T> [[nodiscard]] HMOE_HOST_DEVICE T at_most(T g, T limit) noexcept { return g > limit ? limit : g; }
template <class T> [[nodiscard]] HMOE_HOST_DEVICE T within(T u, T limit) noexcept {
  return u > limit ? limit : u < -limit ? -limit : u;
}
} // namespace detail

/// a = act(g') · u', g' = min(g, limit), u' = u clamped to ±limit: the swiglu_limit of DeepSeek-V4, with silu
/// (transformers' deepseek_v4, glm5_next and hy_v4 have the same form; gpt-oss and MiniMax-M3 have that of
/// gpt_oss_gate). The gate is clamped above only. A clamped value has gradient 0; at the limit itself it still has the
/// inner one. The limit is a constant of the model and must be given: `clamped<silu>{.limit = 10}`.
template <activation Activation> struct clamped {
  double limit = 0; ///< 0: not given, an hmoe::error; infinite: no clamping

  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("limit", limit); }
  void validate() const {
    require(limit > 0, "clamped with limit = ", limit,
            ": give the model's swiglu_limit, above 0 (infinite: no clamping), as in clamped<silu>{.limit = 10}");
  }
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T value(T g, T u) const noexcept {
    return Activation::value(detail::at_most(g, static_cast<T>(limit))) * detail::within(u, static_cast<T>(limit));
  }
  template <class T> HMOE_HOST_DEVICE void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    const T most = static_cast<T>(limit), inner = detail::at_most(g, most);
    dg = g > most ? T(0) : da * detail::within(u, most) * Activation::derivative(inner);
    du = u > most || u < -most ? T(0) : da * Activation::value(inner);
  }
};

/// The clamped gate of gpt-oss: a = (u' + 1) · g' · σ(α g'), g' = min(g, limit), u' = u clamped to ±limit. A clamped
/// value has gradient 0; at the limit itself it still has the inner one.
struct gpt_oss_gate {
  double limit = 7;
  double alpha = 1.702;

  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("limit", limit);
    visit("alpha", alpha);
  }
  void validate() const {
    require(limit > 0 && std::isfinite(alpha), "gpt_oss_gate with limit = ", limit, " and alpha = ", alpha,
            ": the limit must be above 0 (infinite: no clamping) and alpha finite");
  }
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T value(T g, T u) const noexcept {
    const T inner = clamp_gate(g);
    return (clamp_up(u) + T(1)) * (inner * sigma(inner));
  }
  template <class T> HMOE_HOST_DEVICE void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    const T inner = clamp_gate(g), s = sigma(inner);
    const T slope = s * (T(1) + static_cast<T>(alpha) * inner * (T(1) - s));
    dg = g > static_cast<T>(limit) ? T(0) : da * (clamp_up(u) + T(1)) * slope;
    du = u > static_cast<T>(limit) || u < static_cast<T>(-limit) ? T(0) : da * (inner * s);
  }

private:
  template <class T> HMOE_HOST_DEVICE T clamp_gate(T g) const noexcept {
    return detail::at_most(g, static_cast<T>(limit));
  }
  template <class T> HMOE_HOST_DEVICE T clamp_up(T u) const noexcept {
    return detail::within(u, static_cast<T>(limit));
  }
  template <class T> HMOE_HOST_DEVICE T sigma(T z) const noexcept {
    return T(1) / (T(1) + std::exp(-static_cast<T>(alpha) * z));
  }
};

namespace detail {
template <class G> struct as_gating {
  using type = G;
};
template <activation A> struct as_gating<A> {
  using type = gated<A>;
};
} // namespace detail

} // namespace experts
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
