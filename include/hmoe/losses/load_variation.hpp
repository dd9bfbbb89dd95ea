// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/small_memory.hpp>
#include <hmoe/losses/squared_variation.hpp>

#include <cmath>
#include <numbers>
#include <utility>

namespace hmoe::losses::detail {

/// f(i, threshold) for each expert i of a token: the id whose logit i had to beat to be selected, which is the largest
/// logit not selected for an expert that is, and the smallest selected one for an expert that is not; lower ids on
/// ties. Nothing is called when the token selected all experts or none.
template <class T, class F> void for_each_threshold(const routed_batch<T>& batch, std::size_t token, F&& f) {
  const auto z = std::as_const(batch.trace).logits().row(token);
  const auto chosen = batch.assigned.experts_of(token);
  const auto walk = [&](auto&& visit) { // visit(id, selected), ids ascend
    std::size_t next = 0;
    for (index_t e = 0; e < z.size(); ++e) {
      const bool selected = next < chosen.size() && chosen[next] == e;
      next += selected ? 1 : 0;
      if (!batch.trace.is_excluded(token, e))
        visit(e, selected);
    }
  };
  index_t smallest_in = no_index, largest_out = no_index;
  walk([&](index_t e, bool selected) {
    if (selected && (smallest_in == no_index || z[e] < z[smallest_in]))
      smallest_in = e;
    if (!selected && (largest_out == no_index || z[e] > z[largest_out]))
      largest_out = e;
  });
  if (smallest_in != no_index && largest_out != no_index)
    walk([&](index_t e, bool selected) { f(e, selected ? largest_out : smallest_in); });
}

/// Tokens that select all experts in service for them: each of them adds 1 to the loads of these.
template <class T> bool selects_all(const routed_batch<T>& batch, std::size_t token) {
  if (!batch.trace.is_valid(token))
    return false;
  std::size_t count = 0;
  for (std::size_t e = 0; e < batch.trace.expert_count(); ++e)
    count += batch.trace.is_excluded(token, e) ? 1 : 0;
  for (const index_t e : batch.assigned.experts_of(token))
    count += e < batch.trace.expert_count() ? 1 : 0;
  return count == batch.trace.expert_count();
}

/// CV² of load_i = Σ_t Φ(u_{t,i}), u = (z_i − z_threshold) / σ_{t,i} − n_{t,i}. `noise(t, i)` gives {σ, n};
/// `add_noise_gradient(t, i, ∂L/∂σ at constant z)` takes the rest of the gradient.
template <class T, class Noise, class AddNoiseGradient>
double load_variation(routed_batch<T>& batch, double coefficient, Noise noise, AddNoiseGradient add_noise_gradient) {
  require_gradient_sinks(batch);
  const std::size_t tokens = batch.trace.tokens(), experts = batch.trace.expert_count();
  const auto z = std::as_const(batch.trace).logits();
  const auto d_z = batch.trace.d_logits();
  small_memory memory;
  buffer<double> load = memory.zeros<double>(experts), slopes = memory.zeros<double>(experts);
  for (std::size_t t = 0; t < tokens; ++t) {
    if (selects_all(batch, t))
      for (std::size_t e = 0; e < experts; ++e)
        load[e] += batch.trace.is_excluded(t, e) ? 0 : 1;
    for_each_threshold(batch, t, [&](index_t i, index_t threshold) {
      const auto [sigma, n] = noise(t, i);
      const double u = static_cast<double>(z(t, i) - z(t, threshold)) / sigma - n;
      load[i] += std::erfc(-u / std::numbers::sqrt2) / 2;
    });
  }
  const double value = squared_variation(std::as_const(load).view(), slopes.view(),
                                         [&](std::size_t e) { return batch.trace.is_in_service(e); });
  for (std::size_t t = 0; t < tokens; ++t)
    for_each_threshold(batch, t, [&](index_t i, index_t threshold) {
      const auto [sigma, n] = noise(t, i);
      const double above = static_cast<double>(z(t, i) - z(t, threshold)), u = above / sigma - n;
      const double density = std::exp(-u * u / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
      const double by_u = coefficient * slopes[i] * density;
      d_z(t, i) += static_cast<T>(by_u / sigma);
      d_z(t, threshold) -= static_cast<T>(by_u / sigma);
      add_noise_gradient(t, i, -by_u * above / (sigma * sigma));
    });
  return value;
}

} // namespace hmoe::losses::detail

#include <hmoe/core/macros_on.hpp>
