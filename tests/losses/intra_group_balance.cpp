// SPDX-License-Identifier: MIT
#include <hmoe/losses/intra_group_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::gate_values;
using hmoe::losses::intra_group_balance;

TEST_CASE("intra_group_balance is the Switch loss with N k_g / N_g experts, on the gates") {
  support::random_source random(141);
  support::routing_batch batch(9, 6);
  batch.randomize(random);
  support::spread_probabilities(random, batch);
  batch.widths = {8, 8, 12, 12, 12, 20};
  const std::vector<std::size_t> group{0, 0, 1, 1, 1, 2};
  for (const gate_values kind : {gate_values::probabilities, gate_values::selected, gate_values::renormalized}) {
    std::vector<double> n(6), g(6);
    double pairs = 0, entries = 0;
    for (std::size_t t = 0; t < 9; ++t) {
      const auto ids = std::as_const(batch).assigned.experts_of(t);
      std::vector<bool> in(3);
      double sum = 0;
      for (const hmoe::index_t e : ids) {
        in[group[e]] = true;
        sum += batch.trace.probabilities()(t, e);
        n[e] += 1;
        entries += 1;
      }
      pairs += static_cast<double>(std::ranges::count(in, true));
      for (std::size_t e = 0; e < 6; ++e) {
        const bool selected = std::ranges::find(ids, e) != ids.end();
        const double p = batch.trace.probabilities()(t, e);
        g[e] += kind == gate_values::probabilities ? p
                : !selected                        ? 0
                                                   : p / (kind == gate_values::renormalized ? sum : 1);
      }
    }
    const double k = entries / 9, k_g = pairs / 9;
    double expected = 0;
    for (std::size_t e = 0; e < 6; ++e)
      expected += 6 * k_g / 3 / (k * 81) * n[e] * g[e];
    const intra_group_balance loss{0.8, {}, kind};
    CHECK(batch.evaluate(loss) == doctest::Approx(expected).epsilon(1e-13));
    CHECK(support::sink_error(batch, loss) < 1e-6);
  }
}

TEST_CASE("its gradient through the softmax") {
  support::random_source random(142);
  support::routing_batch batch(9, 6);
  batch.randomize(random);
  CHECK(support::softmax_error(batch, intra_group_balance{0.8, {2, 3, 1}}) < 1e-6);
}

TEST_CASE("at balance the share of groups that a token chooses") {
  support::routing_batch batch(8, 8);
  // Two of four groups for each token, and in these one of the two experts.
  batch.set([](std::size_t, std::size_t) { return 0.0; },
            [](std::size_t t, std::size_t e) { return (e / 2) % 2 == t % 2 && e % 2 == (t / 2) % 2; });
  CHECK(batch.evaluate(intra_group_balance{1, {2, 2, 2, 2}}) == doctest::Approx(0.5).epsilon(1e-14));
  batch.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t t, std::size_t e) { return e % 2 == t % 2; });
  CHECK(batch.evaluate(intra_group_balance{1, {2, 2, 2, 2}}) == doctest::Approx(1).epsilon(1e-14));
}

TEST_CASE("without tokens, or experts for them, it is 0") {
  support::routing_batch none(0, 4), unrouted(3, 4);
  CHECK(none.evaluate(intra_group_balance{}) == 0);
  CHECK(unrouted.evaluate(intra_group_balance{}) == 0);
}
