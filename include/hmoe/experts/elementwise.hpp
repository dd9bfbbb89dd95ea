// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/operations.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>

/// What stands between the projections of an expert, over one row of its hidden values: the loops, which are the
/// definition, and the same by the backend where it has the operation (hmoe/execution/operations.hpp).
namespace hmoe::experts {

/// a = act(z)
template <activation Activation, class T> void activate(vector_view<const T> z, vector_view<T> a) {
  for (std::size_t i = 0; i < z.size(); ++i)
    a[i] = Activation::value(z[i]);
}
template <activation Activation, class Math, class T>
void activate(const Math& math, vector_view<const T> z, vector_view<T> a) {
  if constexpr (operations::activate<Math, T, Activation>())
    math.template activate<Activation>(z, a);
  else
    experts::activate<Activation>(z, a);
}

/// d = d · act'(z)
template <activation Activation, class T> void activate_backward(vector_view<const T> z, vector_view<T> d) {
  for (std::size_t i = 0; i < z.size(); ++i)
    d[i] *= Activation::derivative(z[i]);
}
template <activation Activation, class Math, class T>
void activate_backward(const Math& math, vector_view<const T> z, vector_view<T> d) {
  if constexpr (operations::activate_backward<Math, T, Activation>())
    math.template activate_backward<Activation>(z, d);
  else
    experts::activate_backward<Activation>(z, d);
}

/// a = gate(g, u)
template <gating Gate, class T>
void apply_gate(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> a) {
  for (std::size_t i = 0; i < g.size(); ++i)
    a[i] = gate.value(g[i], u[i]);
}
template <class Math, gating Gate, class T>
void apply_gate(const Math& math, const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> a) {
  if constexpr (operations::gate<Math, T, Gate>())
    math.gate(gate, g, u, a);
  else
    experts::apply_gate(gate, g, u, a);
}

/// dg = ∂L/∂g and du = ∂L/∂u from du = ∂L/∂a
template <gating Gate, class T>
void apply_gate_backward(const Gate& gate, vector_view<const T> g, vector_view<const T> u, vector_view<T> dg,
                         vector_view<T> du) {
  for (std::size_t i = 0; i < g.size(); ++i)
    gate.backward(g[i], u[i], du[i], dg[i], du[i]);
}
template <class Math, gating Gate, class T>
void apply_gate_backward(const Math& math, const Gate& gate, vector_view<const T> g, vector_view<const T> u,
                         vector_view<T> dg, vector_view<T> du) {
  if constexpr (operations::gate_backward<Math, T, Gate>())
    math.gate_backward(gate, g, u, dg, du);
  else
    experts::apply_gate_backward(gate, g, u, dg, du);
}

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
