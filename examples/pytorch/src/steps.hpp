// SPDX-License-Identifier: MIT
// Steps between projections that are chosen at run time: banks are compiled once and not once for each activation. The
// host has them, and the kernels of CUDA.
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>

#include "passes.hpp"

#include <cmath>
#include <limits>

#ifdef __CUDACC__
#define HMOE_STEP_INLINE HMOE_HOST_DEVICE inline
#else
#define HMOE_STEP_INLINE [[gnu::always_inline]] inline
#endif

namespace hmoe::python {

/// f(activation), of the type that `which` names.
template <class F> HMOE_STEP_INLINE auto with_activation(step which, const F& f) {
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

  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T value(T g, T u) const noexcept {
    return experts::detail::at_most(experts::silu::value(g), static_cast<T>(limit)) *
           experts::detail::within(u, static_cast<T>(limit));
  }
  template <class T> HMOE_HOST_DEVICE void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    const T most = static_cast<T>(limit), a = experts::silu::value(g);
    dg = a > most ? T(0) : da * experts::detail::within(u, most) * experts::silu::derivative(g);
    du = u > most || u < -most ? T(0) : da * experts::detail::at_most(a, most);
  }
};

/// c tanh(g / c) · σ(g) · c' tanh(u / c'): of Inkling 2.
struct softcapped_gate {
  double gate_cap = 1, up_cap = 1;

  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T value(T g, T u) const noexcept {
    const T c = static_cast<T>(gate_cap), k = static_cast<T>(up_cap);
    return c * std::tanh(g / c) / (T(1) + std::exp(-g)) * k * std::tanh(u / k);
  }
  template <class T> HMOE_HOST_DEVICE void backward(T g, T u, T da, T& dg, T& du) const noexcept {
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

  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T value(T g, T u) const noexcept {
    return with_gate([&](const auto& gate) { return gate.value(g, u); });
  }
  template <class T> HMOE_HOST_DEVICE void backward(T g, T u, T da, T& dg, T& du) const noexcept {
    with_gate([&](const auto& gate) { gate.backward(g, u, da, dg, du); });
  }
  template <class F> HMOE_STEP_INLINE auto with_gate(const F& f) const {
    if (which == step::gpt_oss)
      return f(experts::gpt_oss_gate{limit, alpha});
    if (which == step::silu_then_limit)
      return f(limited_silu{limit});
    if (which == step::softcapped)
      return f(softcapped_gate{limit, alpha});
    return with_activation(which, [&]<class A>(A) { return f(experts::clamped<A>{limit}); });
  }
};

} // namespace hmoe::python

#undef HMOE_STEP_INLINE
