// SPDX-License-Identifier: MIT
// Steps between projections that are chosen at run time: banks are compiled once and not once for each activation.
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>

#include "../passes.hpp"

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
  case step::silu:
  case step::gpt_oss:
    break;
  }
  return f(experts::silu{});
}

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
