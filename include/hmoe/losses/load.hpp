// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/squared_variation.hpp>

#include <cmath>
#include <numbers>
#include <utility>

namespace hmoe::losses {

namespace detail {

/// f(i, threshold) for each expert i of a token: the id whose logit i had to beat to be selected, which is the largest
/// logit not selected for an expert that is, and the smallest selected one for an expert that is not; lower ids on
/// ties. Nothing is called when the token selected all experts or none.
template <class T, class F> void for_each_threshold(const routing_record<T>& record, std::size_t token, F&& f) {
  const auto z = std::as_const(record.trace).logits().row(token);
  const auto chosen = record.assigned.experts_of(token);
  const auto walk = [&](auto&& visit) { // visit(id, selected), ids ascend
    std::size_t next = 0;
    for (index_t e = 0; e < z.size(); ++e) {
      const bool selected = next < chosen.size() && chosen[next] == e;
      next += selected ? 1 : 0;
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

/// Tokens that select all experts: each of them adds 1 to every load.
template <class T> bool selects_all(const routing_record<T>& record, std::size_t token) {
  std::size_t count = 0;
  for (const index_t e : record.assigned.experts_of(token))
    count += e < record.trace.expert_count() ? 1 : 0;
  return count == record.trace.expert_count();
}

/// CV² of load_i = Σ_t Φ(u_{t,i}), u = (z_i − z_threshold) / σ_{t,i} − n_{t,i}. `noise(t, i)` gives {σ, n};
/// `add_noise_gradient(t, i, ∂L/∂σ at constant z)` takes the rest of the gradient.
template <class T, class Noise, class AddNoiseGradient>
double load_variation(routing_record<T>& record, double coefficient, Noise noise, AddNoiseGradient add_noise_gradient) {
  require_gradient_sinks(record);
  const std::size_t tokens = record.trace.tokens(), experts = record.trace.expert_count();
  const auto z = std::as_const(record.trace).logits();
  const auto d_z = record.trace.d_logits();
  small_memory memory;
  buffer<double> load = memory.zeros<double>(experts), slopes = memory.zeros<double>(experts);
  for (std::size_t t = 0; t < tokens; ++t) {
    if (selects_all(record, t))
      for (double& sum : load)
        sum += 1;
    for_each_threshold(record, t, [&](index_t i, index_t threshold) {
      const auto [sigma, n] = noise(t, i);
      const double u = static_cast<double>(z(t, i) - z(t, threshold)) / sigma - n;
      load[i] += std::erfc(-u / std::numbers::sqrt2) / 2;
    });
  }
  const double value = squared_variation(std::as_const(load).view(), slopes.view());
  for (std::size_t t = 0; t < tokens; ++t)
    for_each_threshold(record, t, [&](index_t i, index_t threshold) {
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

} // namespace detail

/// L = CV²(load) with a smooth stand-in for the number of tokens of each expert: load_i = Σ_t Φ((z_{t,i} − θ_{t,i}) /
/// σ), the probability that expert i would be selected if normal noise of standard deviation σ were drawn anew for its
/// logit alone; θ is the logit that it has to beat. CV² as in importance. σ is constant: 1/N by default (V-MoE, arXiv
/// 2106.05974; Tutel's gate_noise/N). The logits count as the clean ones. A token that selects all experts counts 1 for
/// each, one that selects none 0. Value at balance: 0. The gradient goes to the logits, θ's included; which experts are
/// selected is constant.
struct load {
  double coefficient = 0.1;
  double stddev = 0; ///< σ in units of the logits; 0: 1/N
  static constexpr std::string_view name = "load";

  template <class T> double evaluate(routing_record<T>& record) const {
    require(stddev >= 0, "load: the standard deviation is ", stddev, ", it must not be negative");
    const double sigma = stddev > 0 ? stddev : 1 / static_cast<double>(record.trace.expert_count());
    return detail::load_variation(
        record, coefficient, [&](std::size_t, std::size_t) { return std::pair{sigma, 0.0}; },
        [](std::size_t, std::size_t, double) {});
  }
};

/// The load loss of Shazeer et al. 2017 (arXiv 1701.06538 eq. 9–10) for routers with learned noise, whose logits are
/// z = clean + n σ with σ = softplus(r) + ε: load_i = Σ_t Φ((clean_i − θ_i) / σ_i), θ among the noisy logits. It reads
/// r and n from trace.score_saved(), at the columns [column, column + N) and the N behind them, where routing::noisy
/// puts them, and adds the gradient by r at constant z to trace.d_score_saved(). `epsilon` must be the router's. A
/// batch that was routed without noise is an hmoe::error.
struct noisy_load {
  double coefficient = 0.1;
  double epsilon = 0;
  std::size_t column = 0; ///< the first saved value of routing::noisy: the wrapped score's saved_per_token()
  static constexpr std::string_view name = "noisy_load";

  template <class T> double evaluate(routing_record<T>& record) const {
    detail::require_gradient_sinks(record);
    const std::size_t experts = record.trace.expert_count();
    const auto saved = std::as_const(record.trace).score_saved();
    const auto sink = record.trace.d_score_saved();
    require(record.trace.tokens() == 0 || record.trace.inputs().noise,
            "noisy_load needs a batch that was routed with noise: set routing_inputs::noise, or use losses::load");
    require(saved.cols() >= column + 2 * experts, "noisy_load reads 2 x ", experts,
            " saved values of a token from column ", column, " on, the router saved ", saved.cols(),
            ": is its score a routing::noisy?");
    return detail::load_variation(
        record, coefficient,
        [&](std::size_t t, std::size_t i) {
          const auto r = static_cast<double>(saved(t, column + i));
          const double softplus = std::max(r, 0.0) + std::log1p(std::exp(-std::abs(r)));
          return std::pair{softplus + epsilon, static_cast<double>(saved(t, column + experts + i))};
        },
        [&](std::size_t t, std::size_t i, double by_sigma) {
          const auto r = static_cast<double>(saved(t, column + i));
          sink(t, column + i) += static_cast<T>(by_sigma / (1 + std::exp(-r)));
        });
  }
};

} // namespace hmoe::losses
