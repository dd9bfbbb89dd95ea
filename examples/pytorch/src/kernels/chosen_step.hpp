// SPDX-License-Identifier: MIT
// Steps between projections (steps.hpp) in vectors of this instruction set.
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/activation.hpp>

#include "../steps.hpp"

#include <xsimd/xsimd.hpp>

namespace hmoe::python {

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
