// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

namespace hmoe::losses {

/// What a loss takes for the gate g_{t,i} of token t and expert i: its probability whether selected or not; its
/// probability if selected, else 0; or that divided by the sum over the token's selected experts. A softmax over the
/// selected logits only, as Shazeer's, is the last one of softmax probabilities.
enum class gate_values { probabilities, selected, renormalized };

namespace detail {

/// Σ P over the routed experts that the token selected.
template <class T> double selected_probability(const routing_record<T>& record, std::size_t token) {
  const auto p = record.trace.probabilities().row(token);
  double sum = 0;
  for (const index_t e : record.assigned.experts_of(token))
    if (e < p.size())
      sum += static_cast<double>(p[e]);
  return sum;
}

/// sums[N] += the token's gates.
template <class T>
void add_gates(const routing_record<T>& record, gate_values kind, std::size_t token, vector_view<double> sums) {
  const auto p = record.trace.probabilities().row(token);
  if (kind == gate_values::probabilities) {
    for (std::size_t e = 0; e < p.size(); ++e)
      sums[e] += static_cast<double>(p[e]);
    return;
  }
  const double divisor = kind == gate_values::renormalized ? selected_probability(record, token) : 1;
  for (const index_t e : record.assigned.experts_of(token))
    if (e < p.size() && divisor > 0)
      sums[e] += static_cast<double>(p[e]) / divisor;
}

/// Adds to the trace's sinks, given slopes[N] = ∂L/∂g_{t,i}, the same for all tokens.
template <class T>
void add_gates_gradient(routing_record<T>& record, gate_values kind, std::size_t token,
                        vector_view<const double> slopes) {
  const auto p = record.trace.probabilities().row(token);
  const auto d_p = record.trace.d_probabilities().row(token);
  if (kind == gate_values::probabilities) {
    for (std::size_t e = 0; e < p.size(); ++e)
      d_p[e] += static_cast<T>(slopes[e]);
    return;
  }
  const bool divided = kind == gate_values::renormalized;
  const double divisor = divided ? selected_probability(record, token) : 1;
  if (!(divisor > 0))
    return;
  double mean = 0; // Σ slope · gate, by which a common factor of all selected probabilities has no effect
  if (divided)
    for (const index_t e : record.assigned.experts_of(token))
      if (e < p.size())
        mean += slopes[e] * static_cast<double>(p[e]) / divisor;
  for (const index_t e : record.assigned.experts_of(token))
    if (e < p.size())
      d_p[e] += static_cast<T>((slopes[e] - mean) / divisor);
}

} // namespace detail
} // namespace hmoe::losses
