// SPDX-License-Identifier: MIT
// Steps between projections that are chosen at run time: banks are compiled once and not once for each activation.
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>

#include "../passes.hpp"

#include <xsimd/xsimd.hpp>

#include <cmath>
#include <limits>

namespace hmoe::python {

/// f(activation), of the type that `which` names.
template <class F> [[gnu::always_inline]] inline auto with_activation(step which, const F& f) {
  switch (which) {
  case step::gelu:
    return f(experts::gelu{});
  case step::gelu_tanh:
    return f(experts::gelu_tanh{});
  case step::relu:
    return f(experts::relu{});
  case step::squared_relu:
    return f(experts::squared_relu{});
  case step::linear:
    return f(experts::linear{});
  default:
    break;
  }
  return f(experts::silu{});
}

/// min(silu(g), limit) · u, u clamped to ± limit: of Step-3.
struct limited_silu {
  double limit = std::numeric_limits<double>::infinity();

  template <class T> [[nodiscard]] T value(T g, T u) const noexcept {
    return experts::detail::at_most(experts::silu::value(g), static_cast<T>(limit)) *
           experts::detail::within(u, static_cast<T>(limit));
  }
  template <class T> void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    const T most = static_cast<T>(limit), a = experts::silu::value(g);
    dg = a > most ? T(0) : da * experts::detail::within(u, most) * experts::silu::derivative(g);
    du = u > most || u < -most ? T(0) : da * experts::detail::at_most(a, most);
  }
};

/// c tanh(g / c) · σ(g) · c' tanh(u / c'): of Inkling 2.
struct softcapped_gate {
  double gate_cap = 1, up_cap = 1;

  template <class T> [[nodiscard]] T value(T g, T u) const noexcept {
    const T c = static_cast<T>(gate_cap), k = static_cast<T>(up_cap);
    return c * std::tanh(g / c) / (T(1) + std::exp(-g)) * k * std::tanh(u / k);
  }
  template <class T> void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    const T c = static_cast<T>(gate_cap), k = static_cast<T>(up_cap);
    const T s = T(1) / (T(1) + std::exp(-g)), left = std::tanh(g / c), right = std::tanh(u / k);
    dg = da * k * right * s * ((T(1) - left * left) + c * left * (T(1) - s));
    du = da * c * left * s * (T(1) - right * right);
  }
};

/// The gating of a GLU. Clamping at an infinite limit changes no bit.
struct chosen_gate {
  step which = step::silu;
  double limit = std::numeric_limits<double>::infinity(), alpha = 1.702;

  template <class T> [[nodiscard]] T value(T g, T u) const noexcept {
    return with_gate([&](const auto& gate) { return gate.value(g, u); });
  }
  template <class T> void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    with_gate([&](const auto& gate) { gate.backward(g, u, da, dg, du); });
  }
  template <class F> [[gnu::always_inline]] auto with_gate(const F& f) const {
    if (which == step::gpt_oss)
      return f(experts::gpt_oss_gate{limit, alpha});
    if (which == step::silu_then_limit)
      return f(limited_silu{limit});
    if (which == step::softcapped)
      return f(softcapped_gate{limit, alpha});
    return with_activation(which, [&]<class A>(A) { return f(experts::clamped<A>{limit}); });
  }
};

/// The activation of an MLP: chosen_backend has it, so these are not called.
struct chosen_activation {
  template <class T> [[nodiscard]] static T value(T z) noexcept { return z; }
  template <class T> [[nodiscard]] static T derivative(T) noexcept { return T(1); }
};

/// backends::simd with the activation of an MLP.
struct chosen_backend : backends::simd<> {
  step which = step::silu;

  template <activation Activation, class T> void activate(vector_view<const T> z, vector_view<T> a) const noexcept {
    with_activation(which, [&]<class A>(A) { backends::simd<>::activate<A>(z, a); });
  }
  template <activation Activation, class T>
  void activate_backward(vector_view<const T> z, vector_view<T> d) const noexcept {
    with_activation(which, [&]<class A>(A) { backends::simd<>::activate_backward<A>(z, d); });
  }
};

} // namespace hmoe::python

template <> struct hmoe::backends::vector_form<hmoe::python::limited_silu> {
  using gate_type = python::limited_silu;
  using silu = vector_form<experts::silu>;
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const gate_type& gate, const V& g, const V& u) noexcept {
    const V most(static_cast<typename V::value_type>(gate.limit));
    return simd_detail::at_most(silu::value(g), most) * simd_detail::within(u, most);
  }
  template <class V>
  static void backward(const gate_type& gate, const V& g, const V& u, const V& da, V& dg, V& du) noexcept {
    const V most(static_cast<typename V::value_type>(gate.limit)), a = silu::value(g);
    dg = xsimd::select(a > most, V(0), da * simd_detail::within(u, most) * silu::derivative(g));
    du = xsimd::select((u > most) | (u < -most), V(0), da * simd_detail::at_most(a, most));
  }
};

template <> struct hmoe::backends::vector_form<hmoe::python::softcapped_gate> {
  using gate_type = python::softcapped_gate;
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const gate_type& gate, const V& g, const V& u) noexcept {
    const V c(static_cast<typename V::value_type>(gate.gate_cap)), k(static_cast<typename V::value_type>(gate.up_cap));
    return c * xsimd::tanh(g / c) * simd_detail::logistic(g).sigma * k * xsimd::tanh(u / k);
  }
  template <class V>
  static void backward(const gate_type& gate, const V& g, const V& u, const V& da, V& dg, V& du) noexcept {
    const V c(static_cast<typename V::value_type>(gate.gate_cap)), k(static_cast<typename V::value_type>(gate.up_cap));
    const V left = xsimd::tanh(g / c), right = xsimd::tanh(u / k);
    const auto s = simd_detail::logistic(g);
    dg = da * k * right * s.sigma * ((V(1) - left * left) + c * left * s.complement);
    du = da * c * left * s.sigma * (V(1) - right * right);
  }
};

template <> struct hmoe::backends::vector_form<hmoe::python::chosen_gate> {
  using gate_type = python::chosen_gate;
  static constexpr bool available = true;
  template <class V> [[nodiscard]] static V value(const gate_type& gate, const V& g, const V& u) noexcept {
    return gate.with_gate([&]<class G>(const G& one) { return vector_form<G>::value(one, g, u); });
  }
  template <class V>
  static void backward(const gate_type& gate, const V& g, const V& u, const V& da, V& dg, V& du) noexcept {
    gate.with_gate([&]<class G>(const G& one) { vector_form<G>::backward(one, g, u, da, dg, du); });
  }
};
