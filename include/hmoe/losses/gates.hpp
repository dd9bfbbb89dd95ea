// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <utility>

namespace hmoe::losses {

/// What a loss takes for the gate g_{t,i} of token t and expert i: its probability whether selected or not; its
/// probability if selected, else 0; or that divided by the sum over the token's selected experts. A softmax over the
/// selected logits only, as Shazeer's, is the last one of softmax probabilities.
enum class gate_values { probabilities, selected, renormalized };

namespace detail {

/// What the probabilities of a token's selected experts are divided by to make gates: their sum, or 1. Shared experts,
/// whose ids are not below the size of p, have no gate.
template <class T>
[[nodiscard]] HMOE_HOST_DEVICE double gate_divisor(gate_values kind, vector_view<const T> p,
                                                   vector_view<const index_t> chosen) noexcept {
  if (kind != gate_values::renormalized)
    return 1;
  double sum = 0;
  for (const index_t e : chosen)
    if (e < p.size())
      sum += static_cast<double>(p[e]);
  return sum;
}
/// The gate of an expert with probability p; 0 where there is nothing to divide by.
[[nodiscard]] HMOE_HOST_DEVICE inline double gate_of(double p, double divisor) noexcept {
  return divisor > 0 ? p / divisor : 0;
}
/// Adds to d_p[N] the gradient of a token's selected gates, given slopes[N] = ∂L/∂g_i.
template <class T>
HMOE_HOST_DEVICE void add_selected_gates_gradient(gate_values kind, double divisor, vector_view<const T> p,
                                                  vector_view<const index_t> chosen, vector_view<const double> slopes,
                                                  vector_view<T> d_p) noexcept {
  if (!(divisor > 0))
    return;
  double mean = 0; // Σ slope · gate, by which a common factor of all selected probabilities has no effect
  if (kind == gate_values::renormalized)
    for (const index_t e : chosen)
      if (e < p.size())
        mean += slopes[e] * static_cast<double>(p[e]) / divisor;
  for (const index_t e : chosen)
    if (e < p.size())
      d_p[e] += static_cast<T>((slopes[e] - mean) / divisor);
}

/// sums[N] += the token's gates.
template <class T>
void add_gates(const routed_batch<T>& batch, gate_values kind, std::size_t token, vector_view<double> sums) {
  if (!batch.trace.is_valid(token))
    return;
  const auto p = std::as_const(batch.trace).probabilities().row(token);
  if (kind == gate_values::probabilities) {
    for (std::size_t e = 0; e < p.size(); ++e)
      sums[e] += static_cast<double>(p[e]);
    return;
  }
  const auto chosen = batch.assigned.experts_of(token);
  const double divisor = gate_divisor(kind, p, chosen);
  for (const index_t e : chosen)
    if (e < p.size())
      sums[e] += gate_of(static_cast<double>(p[e]), divisor);
}

/// Adds to the trace's sinks, given slopes[N] = ∂L/∂g_{t,i}, the same for all tokens.
template <class T>
void add_gates_gradient(routed_batch<T>& batch, gate_values kind, std::size_t token, vector_view<const double> slopes) {
  if (!batch.trace.is_valid(token))
    return;
  const auto p = std::as_const(batch.trace).probabilities().row(token);
  const auto d_p = batch.trace.d_probabilities().row(token);
  if (kind == gate_values::probabilities) {
    for (std::size_t e = 0; e < p.size(); ++e)
      d_p[e] += static_cast<T>(slopes[e]);
    return;
  }
  const auto chosen = batch.assigned.experts_of(token);
  add_selected_gates_gradient(kind, gate_divisor(kind, p, chosen), p, chosen, slopes, d_p);
}

} // namespace detail
} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
