// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>

/// What stands between the projections of an expert, over one row of its hidden values. The loops here are the
/// definition; a backend that does better has the functions that are looked for: activate, activate_backward, gate,
/// gate_backward.
namespace hmoe::experts {

/// a = act(z)
template <activation Activation, class Math, class T>
void activate(const Math& math, vector_view<const T> z, vector_view<T> a) {
  if constexpr (requires { math.template activate<Activation>(z, a); })
    math.template activate<Activation>(z, a);
  else
    for (std::size_t i = 0; i < z.size(); ++i)
      a[i] = Activation::value(z[i]);
}

/// d = d · act'(z)
template <activation Activation, class Math, class T>
void activate_backward(const Math& math, vector_view<const T> z, vector_view<T> d) {
  if constexpr (requires { math.template activate_backward<Activation>(z, d); })
    math.template activate_backward<Activation>(z, d);
  else
    for (std::size_t i = 0; i < z.size(); ++i)
      d[i] *= Activation::derivative(z[i]);
}

/// a = gate(g, u)
template <class Math, gating Gate, class T>
void apply_gate(const Math& math, const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> a) {
  if constexpr (requires { math.gate(gate, g, u, a); })
    math.gate(gate, g, u, a);
  else
    for (std::size_t i = 0; i < g.size(); ++i)
      a[i] = gate.value(g[i], u[i]);
}

/// dg = ∂L/∂g and du = ∂L/∂u from du = ∂L/∂a
template <class Math, gating Gate, class T>
void apply_gate_backward(const Math& math, const Gate& gate, vector_view<const T> g, vector_view<const T> u,
                         vector_view<T> dg, vector_view<T> du) {
  if constexpr (requires { math.gate_backward(gate, g, u, dg, du); })
    math.gate_backward(gate, g, u, dg, du);
  else
    for (std::size_t i = 0; i < g.size(); ++i)
      gate.backward(g[i], u[i], du[i], dg[i], du[i]);
}

} // namespace hmoe::experts
