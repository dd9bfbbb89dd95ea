// SPDX-License-Identifier: MIT
// Losses over an expert that is out of service (its logits are minus infinity) against a batch without that expert.
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/smooth_load.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace losses = hmoe::losses;
using hmoe::index_t;

namespace {
constexpr std::size_t tokens = 8, out = 1; // of five experts

/// Routed to the k best of what is in service. `gap`: expert 1 of five is there and out of service; else there are
/// four.
struct batch {
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  std::vector<std::size_t> widths;
  std::vector<std::size_t> original; ///< ids as with five experts

  batch(bool gap, std::size_t k) {
    const std::vector<std::size_t> all{2, 7, 3, 0, 5};
    for (std::size_t e = 0; e < 5; ++e)
      if (gap || e != out) {
        original.push_back(e);
        widths.push_back(all[e]);
      }
    const std::size_t n = original.size();
    trace.resize(tokens, n, 2 * n, true);
    trace.set_inputs({.noise = hmoe::noise_source{hmoe::seed{1}, 2}});
    assigned.resize_tokens(tokens);
    std::vector<index_t> ids;
    for (std::size_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t e = original[i];
        trace.logits()(t, i) = e == out ? -std::numeric_limits<double>::infinity() : hmoe::normal(hmoe::seed{5}, t, e);
        trace.score_saved()(t, i) = hmoe::normal(hmoe::seed{6}, t, e);
        trace.score_saved()(t, n + i) = hmoe::normal(hmoe::seed{7}, t, e);
        sum += std::exp(trace.logits()(t, i));
      }
      for (std::size_t i = 0; i < n; ++i)
        trace.probabilities()(t, i) = std::exp(trace.logits()(t, i)) / sum;
      std::vector<index_t> best(n);
      std::iota(best.begin(), best.end(), index_t{0});
      std::sort(best.begin(), best.end(),
                [&](index_t a, index_t b) { return trace.logits()(t, a) > trace.logits()(t, b); });
      const std::size_t count = t == 0 ? 4 : k; // the first token gets all that are in service
      std::sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(count));
      for (std::size_t j = 0; j < count; ++j) {
        ids.push_back(best[j]);
        ++trace.tokens_per_expert()[best[j]];
      }
      assigned.offsets()[t + 1] = static_cast<index_t>(ids.size());
    }
    assigned.resize_entries();
    std::copy(ids.begin(), ids.end(), assigned.experts().begin());
    std::fill(assigned.weights().begin(), assigned.weights().end(), 0.5);
  }
  [[nodiscard]] hmoe::routed_batch<double> routed() { return {trace, assigned, widths}; }
};

template <class Loss, class Other> void check(const Loss& loss, const Other& of_four) {
  for (const std::size_t k : {1U, 2U, 4U}) {
    batch gapped(true, k), plain(false, k);
    auto with = gapped.routed(), without = plain.routed();
    const double value = loss.evaluate(with), expected = of_four.evaluate(without);
    CHECK(value == doctest::Approx(expected).epsilon(1e-12));
    support::for_each_sink(gapped.trace, plain.trace, [&](auto got, auto other) {
      for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t i = 0; i < 4; ++i)
          CHECK(got(t, plain.original[i]) == doctest::Approx(other(t, i)).epsilon(1e-12));
    });
  }
}
template <class Loss> void check(const Loss& loss) { check(loss, loss); }
} // namespace

TEST_CASE("an expert out of service has no share in losses") {
  check(losses::load_balance{1});
  check(losses::load_balance{1, losses::balance_counts::first_choice, losses::balance_normalization::to_one});
  check(losses::sequence_balance{1});
  check(losses::zero_cost_balance{1});
  check(losses::compute_cost{1});
  check(losses::parameter_penalty{1});
  check(losses::parameter_penalty{1, losses::width_unit::max});
  check(losses::router_entropy{1});
  check(losses::z{1});
  check(losses::importance{1});
  check(losses::importance{1, losses::gate_values::probabilities});
  check(losses::smooth_load{1});
  check(losses::noisy_load{1});
  check(losses::adaptive_l1{1, 2});
}

TEST_CASE("nor in the balance over a global batch") {
  batch gapped(true, 2), plain(false, 2);
  losses::load_accumulator five(5), four(4);
  for (int i = 0; i < 3; ++i) { // enough tokens for every k of the check
    five.add(gapped.routed());
    four.add(plain.routed());
  }
  check(losses::global_load_balance{1, &five}, losses::global_load_balance{1, &four});
}
