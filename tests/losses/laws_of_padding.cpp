// SPDX-License-Identifier: MIT
// Every loss on a batch with padding against the same batch without it.
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/group_balance.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/intra_group_balance.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/smooth_load.hpp>
#include <hmoe/losses/sparsity_controller.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>

#include "losses/sink_checks.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace losses = hmoe::losses;
using hmoe::index_t;

namespace {
constexpr std::size_t experts = 5, saved = 2 * experts;
const std::vector<std::uint8_t> mask{1, 0, 1, 1, 0, 0, 1, 1, 0, 0};
const std::vector<std::size_t> widths{2, 2, 3, 0, 5};

/// A batch routed to the two best of five experts, as a router leaves it: padding has logits and probabilities of 0.
struct batch {
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  std::vector<index_t> sequences;
  std::vector<std::size_t> tokens; ///< which of the ten they are

  explicit batch(bool padded) {
    sequences.push_back(0);
    for (std::size_t t = 0; t < mask.size(); ++t) {
      if (padded || mask[t] != 0)
        tokens.push_back(t);
      if (t == 3 || t == 5 || t == 9) // the second sequence is nothing but padding
        sequences.push_back(static_cast<index_t>(tokens.size()));
    }
    trace.resize(tokens.size(), experts, saved, true);
    hmoe::routing_inputs<double> inputs{.noise = hmoe::noise_source{hmoe::seed{1}, 2}, .sequence_offsets = sequences};
    if (padded)
      inputs.valid = mask;
    trace.set_inputs(inputs);
    assigned.resize_tokens(tokens.size());
    assigned.set_padding(tokens.size() - trace.valid_tokens());
    std::vector<index_t> ids;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      support::random_source random(40 + tokens[i]);
      for (double& value : trace.score_saved().row(i))
        value = mask[tokens[i]] != 0 ? random.real(-1, 1) : std::nan("");
      double sum = 0;
      for (std::size_t e = 0; e < experts; ++e)
        sum += std::exp(trace.logits()(i, e) = mask[tokens[i]] != 0 ? random.real(-2, 2) : 0);
      for (std::size_t e = 0; e < experts; ++e)
        trace.probabilities()(i, e) = mask[tokens[i]] != 0 ? std::exp(trace.logits()(i, e)) / sum : 0;
      if (mask[tokens[i]] != 0) {
        std::vector<index_t> best{0, 1, 2, 3, 4};
        std::sort(best.begin(), best.end(),
                  [&](index_t a, index_t b) { return trace.logits()(i, a) > trace.logits()(i, b); });
        std::sort(best.begin(), best.begin() + 2);
        for (std::size_t j = 0; j < 2; ++j) {
          ids.push_back(best[j]);
          ++trace.tokens_per_expert()[best[j]];
        }
      }
      assigned.offsets()[i + 1] = static_cast<index_t>(ids.size());
    }
    assigned.resize_entries();
    std::copy(ids.begin(), ids.end(), assigned.experts().begin());
    std::fill(assigned.weights().begin(), assigned.weights().end(), 0.5);
  }
  [[nodiscard]] hmoe::routed_batch<double> routed() { return {trace, assigned, widths}; }
};

template <class Loss> void check(const Loss& loss) {
  batch padded(true), plain(false);
  auto with = padded.routed(), without = plain.routed();
  const double value = loss.evaluate(with), expected = loss.evaluate(without);
  CHECK(value == doctest::Approx(expected).epsilon(1e-12));
  CHECK(value != 0);
  double largest = 0;
  support::for_each_sink(padded.trace, plain.trace, [&](auto got, auto other) {
    for (std::size_t i = 0, j = 0; i < padded.tokens.size(); ++i) {
      const bool valid = mask[padded.tokens[i]] != 0;
      for (std::size_t c = 0; c < got.cols(); ++c) {
        const double reference = valid ? other(j, c) : 0;
        CHECK(got(i, c) == doctest::Approx(reference).epsilon(1e-12));
        largest = std::max(largest, std::abs(reference));
      }
      j += valid ? 1 : 0;
    }
  });
  CHECK(largest > 0);
}
} // namespace

TEST_CASE("padding has no share in any loss") {
  check(losses::load_balance{1});
  check(losses::load_balance{1, losses::balance_counts::first_choice, losses::balance_normalization::to_one});
  check(losses::sequence_balance{1});
  check(losses::sequence_balance{1, losses::balance_counts::all_choices, losses::balance_normalization::to_k, false});
  check(losses::group_balance{1});
  check(losses::intra_group_balance{1});
  check(losses::zero_cost_balance{1});
  check(losses::compute_cost{1});
  check(losses::parameter_penalty{1});
  check(losses::router_entropy{1});
  check(losses::z{1});
  check(losses::importance{1});
  check(losses::importance{1, losses::gate_values::probabilities});
  check(losses::smooth_load{1});
  check(losses::noisy_load{1});
  check(losses::adaptive_l1{1, 2});
  check(losses::adaptive_l1{1, 2, false});
}

TEST_CASE("nor in what is counted over batches") {
  batch padded(true), plain(false);
  losses::load_accumulator with(experts), without(experts);
  with.add(padded.routed());
  without.add(plain.routed());
  CHECK(with.tokens() == without.tokens());
  CHECK(std::ranges::equal(with.counts(), without.counts()));
  check(losses::global_load_balance{1, &without});
  losses::sparsity_controller a(experts, 2), b(experts, 2);
  a.add(padded.trace);
  b.add(plain.trace);
  CHECK(a.sparsity() == b.sparsity());
}
