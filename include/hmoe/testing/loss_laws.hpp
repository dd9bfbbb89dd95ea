// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/testing/guarded_routing.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// What an auxiliary loss promises.
struct loss_options {
  std::size_t tokens = 7;
  std::size_t experts = 5;
  bool treats_experts_alike = true; ///< renumbering the experts leaves the value as it is
  bool learned_noise = false;       ///< the batch was routed by routing::noisy: score_saved() holds spreads and noise
  bool has_probabilities = true;    ///< false: the router is one with routing::unscored, whose scores are the logits
  double tolerance = 0;             ///< of gradients; 0 means gradient_tolerance<T>
};

namespace detail {

/// A routed batch without a router: random logits, their softmax, and some choice of experts.
template <class T> struct routing_sample {
  guarded_routing<T> memory;
  router_trace<T>& trace = memory.trace();
  assignment<T>& assigned = memory.assigned();
  std::vector<std::size_t> widths;

  routing_sample(const loss_options& options, std::size_t tokens)
      : memory(tokens, options.experts, options.learned_noise ? 2 * options.experts : 0, options.experts) {
    const std::size_t experts = options.experts;
    if (options.learned_noise) {
      const std::vector<T> saved = random_values<T>(tokens * 2 * experts, 22);
      std::copy(saved.begin(), saved.end(), trace.score_saved().data());
      trace.set_inputs({.noise = noise_source{seed{23}}});
    }
    const std::vector<T> z = random_values<T>(tokens * experts, 21);
    std::copy(z.begin(), z.end(), trace.logits().data());
    trace.set_has_probabilities(options.has_probabilities);
    if (options.has_probabilities)
      for (std::size_t t = 0; t < tokens; ++t)
        routing::softmax{}.forward(std::as_const(trace).logits().row(t), trace.probabilities().row(t));
    else
      std::copy(z.begin(), z.end(), trace.probabilities().data());
    for (std::size_t e = 0; e < experts; ++e)
      widths.push_back(1 + (e * 7) % 5 + e);
    assign([](std::size_t t, std::size_t e) { return (t * 5 + e * 3) % 4 == 1; });
  }
  template <class Rule> void assign(Rule&& rule) {
    const std::size_t tokens = trace.tokens(), experts = trace.expert_count();
    std::fill(trace.tokens_per_expert().begin(), trace.tokens_per_expert().end(), index_t{0});
    assigned.resize_tokens(tokens);
    std::vector<index_t> ids;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t e = 0; e < experts; ++e)
        if (rule(t, e)) {
          ids.push_back(static_cast<index_t>(e));
          ++trace.tokens_per_expert()[e];
        }
      assigned.offsets()[t + 1] = static_cast<index_t>(ids.size());
    }
    assigned.resize_entries();
    memory.mark_entries();
    std::copy(ids.begin(), ids.end(), assigned.experts().data());
    std::fill(assigned.weights().begin(), assigned.weights().end(), T(0.5));
  }
  [[nodiscard]] routed_batch<T> routed() { return {trace, assigned, widths}; }
  [[nodiscard]] std::vector<T> sinks() const {
    return join(trace.d_logits(), trace.d_probabilities(), trace.d_score_saved());
  }
  [[nodiscard]] std::vector<T> scores() const {
    return join(trace.logits(), trace.probabilities(), trace.score_saved());
  }

  /// Which of the sinks differs most from what is expected, and where.
  [[nodiscard]] std::string where(const std::vector<T>& got, const std::vector<double>& expected) const {
    const std::size_t n = trace.logits().size();
    const auto differ = [&](std::size_t first, std::size_t last, const char* sink, std::size_t cols) {
      const std::vector<T> a(got.begin() + static_cast<std::ptrdiff_t>(first),
                             got.begin() + static_cast<std::ptrdiff_t>(last));
      const std::vector<double> b(expected.begin() + static_cast<std::ptrdiff_t>(first),
                                  expected.begin() + static_cast<std::ptrdiff_t>(last));
      return std::pair{relative_error(a, b), sink + (" " + largest_difference(a, b, cols))};
    };
    return std::max({differ(0, n, "of d_logits", trace.expert_count()),
                     differ(n, 2 * n, "of d_probabilities", trace.expert_count()),
                     differ(2 * n, got.size(), "of d_score_saved", trace.score_saved().cols())})
        .second;
  }

private:
  static std::vector<T> join(matrix_view<const T> a, matrix_view<const T> b, matrix_view<const T> c) {
    std::vector<T> all(a.data(), a.data() + a.size());
    all.insert(all.end(), b.data(), b.data() + b.size());
    all.insert(all.end(), c.data(), c.data() + c.size());
    return all;
  }
};

template <class T, class Loss> double value_of(const Loss& loss, routing_sample<T>& sample) {
  auto routed = sample.routed();
  return static_cast<double>(loss.evaluate(routed));
}

} // namespace detail

/// Checks an auxiliary loss on random routings, with unequal widths, tokens without an expert and experts without a
/// token: that it adds coefficient × its derivatives by logits, by probabilities and by learned spreads of noise
/// (independent inputs, with the assignment and the noise held constant) to the trace's sinks and changes nothing else,
/// and is 0 without tokens. Every trace has sinks, as an objective demands of those that it evaluates.
template <class T = double, auxiliary_loss<T> Loss>
[[nodiscard]] report check_loss(const Loss& loss, const loss_options& options = {}) {
  report found;
  const double tolerance = options.tolerance > 0 ? options.tolerance : gradient_tolerance<T>;
  const std::size_t experts = options.experts;
  const auto check = [&](auto rule, const char* situation) {
    detail::routing_sample<T> sample(options, options.tokens);
    if (rule != nullptr)
      sample.assign(rule);
    const std::vector<T> before = sample.scores();
    const double value = detail::value_of(loss, sample);
    found.expect(sample.memory.intact(), "writes only into the sinks", "memory beside the trace changed, with ",
                 situation);
    const std::vector<T> gradient = sample.sinks();
    found.expect(std::isfinite(value) && all_finite(gradient), "value and gradient are finite", "not so with ",
                 situation);
    found.expect(same_bits(before, sample.scores()), "leaves logits and probabilities alone",
                 "evaluate changed them, with ", situation);
    const auto scaled = [&] { return static_cast<double>(loss.coefficient) * detail::value_of(loss, sample); };
    const auto z = sample.trace.logits(), p = sample.trace.probabilities();
    std::vector<double> numeric = finite_differences(vector_view<T>(z.data(), z.size()), scaled);
    const std::vector<double> by_p = finite_differences(vector_view<T>(p.data(), p.size()), scaled);
    numeric.insert(numeric.end(), by_p.begin(), by_p.end());
    for (std::size_t t = 0; t < options.tokens && options.learned_noise; ++t) {
      const auto spreads = sample.trace.score_saved().row(t).subview(0, experts);
      const std::vector<double> by_spread = finite_differences(spreads, scaled);
      numeric.insert(numeric.end(), by_spread.begin(), by_spread.end());
      numeric.resize(numeric.size() + experts); // the noise is constant
    }
    const double error = relative_error(gradient, numeric);
    if (!(error <= tolerance))
      found.expect(false, "the gradient is coefficient times the derivative", "with ", situation,
                   " it differs from finite differences ", sample.where(gradient, numeric), ", which is ", error,
                   " of the largest value, allowed are ", tolerance);
  };

  found.expect_no_throw("works without an exception", [&] {
    using rule = bool (*)(std::size_t, std::size_t);
    check(rule{nullptr}, "some experts for each token");
    check(rule{[](std::size_t, std::size_t e) { return e == 1; }}, "all tokens on one expert");
    check(rule{[](std::size_t, std::size_t) { return false; }}, "no expert for any token");

    detail::routing_sample<T> sample(options, options.tokens);
    const double value = detail::value_of(loss, sample);
    std::vector<T> doubled = sample.sinks();
    for (T& v : doubled)
      v *= 2;
    const double again = detail::value_of(loss, sample);
    found.expect(relative_error(sample.sinks(), doubled) <= rounding_tolerance<T>, "adds to the sinks",
                 "a second evaluation did not double the gradient");
    found.expect(value == again, "gives the same value every time", "first ", value, ", then ", again);
    found.expect(repeatable([&] {
                   detail::routing_sample<T> mine(options, options.tokens);
                   std::vector<T> all{static_cast<T>(detail::value_of(loss, mine))};
                   const std::vector<T> sinks = mine.sinks();
                   all.insert(all.end(), sinks.begin(), sinks.end());
                   return all;
                 }),
                 "gives the same bits every time", "another call, or one on another thread, gave others");

    if (options.treats_experts_alike) {
      detail::routing_sample<T> renumbered(options, options.tokens);
      const auto other = [&](std::size_t e) { return experts - 1 - e; };
      for (std::size_t e = 0; e < experts; ++e) {
        renumbered.widths[e] = sample.widths[other(e)];
        for (std::size_t t = 0; t < options.tokens; ++t) {
          renumbered.trace.logits()(t, e) = sample.trace.logits()(t, other(e));
          renumbered.trace.probabilities()(t, e) = sample.trace.probabilities()(t, other(e));
          for (std::size_t block = 0; block < sample.trace.score_saved().cols(); block += experts)
            renumbered.trace.score_saved()(t, block + e) = sample.trace.score_saved()(t, block + other(e));
        }
      }
      renumbered.assign([&](std::size_t t, std::size_t e) {
        const auto ids = std::as_const(sample).assigned.experts_of(t);
        return std::find(ids.begin(), ids.end(), other(e)) != ids.end();
      });
      const double there = detail::value_of(loss, renumbered);
      found.expect(std::abs(there - value) <= rounding_tolerance<T> * std::max(1.0, std::abs(value)),
                   "treats experts alike", "renumbering the experts changed the value from ", value, " to ", there);
    }
  });
  found.expect_no_throw("no tokens are a legal batch", [&] {
    detail::routing_sample<T> nothing(options, 0);
    const double value = detail::value_of(loss, nothing);
    found.expect(value == 0, "no tokens are a legal batch", "the value is ", value, " instead of 0");
    found.expect(nothing.memory.intact(), "writes only into the sinks", "memory beside the trace of no tokens changed");
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
