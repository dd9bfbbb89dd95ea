// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace support {

/// A routed batch without a router; tests change what they need.
struct routing_batch {
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  std::vector<std::size_t> widths;

  routing_batch(std::size_t tokens, std::size_t experts, bool with_sinks = true) : widths(experts, 1) {
    trace.resize(tokens, experts, 0, with_sinks);
    set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t, std::size_t) { return false; });
  }

  /// Logits by a function of token and expert, probabilities their softmax; which experts each token gets.
  template <class Logit, class Chosen> void set(Logit logit, Chosen chosen) {
    std::fill(trace.tokens_per_expert().begin(), trace.tokens_per_expert().end(), hmoe::index_t{0});
    assigned.resize_tokens(tokens());
    std::vector<hmoe::index_t> ids;
    for (std::size_t t = 0; t < tokens(); ++t) {
      for (std::size_t e = 0; e < experts(); ++e) {
        trace.logits()(t, e) = logit(t, e);
        if (!chosen(t, e))
          continue;
        ids.push_back(static_cast<hmoe::index_t>(e));
        ++trace.tokens_per_expert()[e];
      }
      assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(ids.size());
    }
    assigned.resize_entries();
    std::copy(ids.begin(), ids.end(), assigned.experts().data());
    std::fill(assigned.weights().begin(), assigned.weights().end(), 0.5);
    update_probabilities();
  }
  void randomize(random_source& random) {
    for (std::size_t& h : widths)
      h = random.size(1, 40);
    set([&](std::size_t, std::size_t) { return random.real(-2, 2); },
        [&](std::size_t, std::size_t) { return random.real() > 0; });
  }
  void update_probabilities() {
    for (std::size_t t = 0; t < tokens(); ++t) {
      double sum = 0;
      for (std::size_t e = 0; e < experts(); ++e)
        sum += std::exp(trace.logits()(t, e));
      for (std::size_t e = 0; e < experts(); ++e)
        trace.probabilities()(t, e) = std::exp(trace.logits()(t, e)) / sum;
    }
  }
  [[nodiscard]] std::size_t tokens() const { return trace.tokens(); }
  [[nodiscard]] std::size_t experts() const { return trace.expert_count(); }
  [[nodiscard]] double rate(std::size_t e) const {
    return static_cast<double>(trace.tokens_per_expert()[e]) / static_cast<double>(tokens());
  }
  [[nodiscard]] double mean_probability(std::size_t e) const {
    double sum = 0;
    for (std::size_t t = 0; t < tokens(); ++t)
      sum += trace.probabilities()(t, e);
    return sum / static_cast<double>(tokens());
  }
  template <class Loss> double evaluate(const Loss& loss) {
    hmoe::routed_batch<double> routed{trace, assigned, widths};
    return loss.evaluate(routed);
  }

  /// ∂(coefficient·loss)/∂logits as the sinks have it, d_probabilities taken through the softmax, against finite
  /// differences over the logits. The assignment, and so each f_i, stays as it is.
  template <class Loss> double gradient_error_of(const Loss& loss) {
    trace.clear_gradients();
    evaluate(loss);
    std::vector<double> analytic(tokens() * experts());
    for (std::size_t t = 0; t < tokens(); ++t) {
      double dot = 0;
      for (std::size_t e = 0; e < experts(); ++e)
        dot += trace.d_probabilities()(t, e) * trace.probabilities()(t, e);
      for (std::size_t e = 0; e < experts(); ++e)
        analytic[t * experts() + e] =
            trace.d_logits()(t, e) + trace.probabilities()(t, e) * (trace.d_probabilities()(t, e) - dot);
    }
    return gradient_error({trace.logits().data(), trace.logits().size()}, analytic, [&] {
      update_probabilities();
      return loss.coefficient * evaluate(loss);
    });
  }
};

} // namespace support
