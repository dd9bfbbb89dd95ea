// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/preference.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory_resource>

namespace hmoe::routing {

/// Balanced routing by optimal transport with entropy (Sinkhorn 1967; S-BASE of Clark et al. 2022, arXiv 2202.01169):
/// finds row factors a_t and column factors b_e such that Π_te = a_t e^{logit_te} b_e has Σ_e Π_te = 1 for every token
/// and Σ_t Π_te = T/N for every expert, then gives each token the k largest of its row of Π. Alternates rows and
/// columns, in logarithms, until no column is off by more than tolerance·T/N or `iterations` rounds are over. Counts
/// are nearly, not exactly, equal. Weights are made of the router's own probabilities, which the transport leaves
/// alone. Padding tokens and experts that are out of service (logits of −∞) count in neither T nor N. Ties to the lower
/// id. Depends on the whole batch: for training; at inference the usual choice is top_k.
struct sinkhorn {
  std::size_t k = 1;
  std::size_t iterations = 100;
  double tolerance = 1e-3;

  [[nodiscard]] std::size_t max_selected(std::size_t) const noexcept { return k; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("k", k);
    visit("iterations", iterations);
    visit("tolerance", tolerance);
  }
  void validate(std::size_t experts) const {
    require(k >= 1 && k <= experts, "sinkhorn with k = ", k, " for ", experts, " experts: k must be 1 to ", experts);
    require(iterations >= 1, "sinkhorn with 0 iterations: at least 1 is needed");
    require(tolerance >= 0, "sinkhorn with tolerance = ", tolerance, ": it must not be negative");
  }
  static void lay_out(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t experts) {
    const scratch all(memory, tokens, experts);
  }

  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource* memory) const {
    const std::size_t tokens = trace.tokens(), experts = trace.expert_count();
    scratch values(memory, tokens, experts);
    buffer<double>&log_a = values.log_a, &log_b = values.log_b, &row = values.row;
    const auto logit = [&](std::size_t t, std::size_t e) { return static_cast<double>(trace.logits()(t, e)); };
    log_b.fill(0);
    const double wanted =
        std::log(static_cast<double>(trace.valid_tokens())) - std::log(static_cast<double>(trace.experts_in_service()));
    bool balanced = trace.valid_tokens() == 0;
    for (std::size_t i = 0; i < iterations && !balanced; ++i) {
      for (std::size_t t = 0; t < tokens; ++t) // a padding token has the share 0 of every column
        log_a[t] =
            trace.is_valid(t) ? -log_sum_exp(experts, [&](std::size_t e) { return logit(t, e) + log_b[e]; }) : none;
      balanced = true;
      for (std::size_t e = 0; e < experts; ++e) {
        const double column = log_sum_exp(tokens, [&](std::size_t t) { return logit(t, e) + log_a[t]; });
        if (column == none)
          continue; // out of service
        balanced = balanced && std::abs(std::expm1(column + log_b[e] - wanted)) <= tolerance;
        log_b[e] = wanted - column;
      }
    }
    for (std::size_t t = 0; t < tokens; ++t) {
      counts[t] = 0;
      if (!trace.is_valid(t))
        continue;
      for (std::size_t e = 0; e < experts; ++e)
        row[e] = logit(t, e) + log_b[e]; // a_t does not change the order
      index_t last = no_index;
      for (std::size_t i = 0; i < k; ++i)
        chosen(t, i) = last = next_preferred(vector_view<const double>(row.data(), experts), last);
      counts[t] = static_cast<index_t>(k);
    }
  }

private:
  struct scratch {
    scratch(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t experts)
        : log_a(tokens, memory), log_b(experts, memory), row(experts, memory) {}

    buffer<double> log_a, log_b, row;
  };
  static constexpr double none = -std::numeric_limits<double>::infinity();

  template <class F> [[nodiscard]] static double log_sum_exp(std::size_t count, F&& value) {
    double largest = none, sum = 0;
    for (std::size_t i = 0; i < count; ++i)
      largest = std::max(largest, value(i));
    if (largest == none)
      return none;
    for (std::size_t i = 0; i < count; ++i)
      sum += std::exp(value(i) - largest);
    return largest + std::log(sum);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
