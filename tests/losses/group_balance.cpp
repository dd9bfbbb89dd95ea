// SPDX-License-Identifier: MIT
#include <hmoe/losses/group_balance.hpp>
#include <hmoe/losses/load_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::group_balance;

TEST_CASE("group_balance is N_g / (T² k_g) Σ n_g w_g Σ_t p_{t,g}") {
  support::random_source random(131);
  support::routing_batch batch(9, 6);
  batch.randomize(random);
  batch.widths = {8, 8, 12, 12, 12, 20};
  const std::vector<std::size_t> group{0, 0, 1, 1, 1, 2};
  const std::vector<double> weight{(0 + 4) / 4.0, (4 + 4) / 4.0, (12 + 4) / 4.0}; // Δ = 12 − 8
  std::vector<double> n(3), p(3);
  for (std::size_t t = 0; t < 9; ++t) {
    std::vector<bool> in(3);
    for (const hmoe::index_t e : std::as_const(batch).assigned.experts_of(t))
      in[group[e]] = true;
    for (std::size_t g = 0; g < 3; ++g)
      n[g] += in[g] ? 1 : 0;
    for (std::size_t e = 0; e < 6; ++e)
      p[group[e]] += batch.trace.probabilities()(t, e);
  }
  const double k = (n[0] + n[1] + n[2]) / 9;
  double expected = 0;
  for (std::size_t g = 0; g < 3; ++g)
    expected += 3 / (81 * k) * n[g] * weight[g] * p[g];
  const group_balance by_width{0.8}, by_size{0.8, {2, 3, 1}};
  CHECK(batch.evaluate(by_width) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(batch.evaluate(by_size) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(support::sink_error(batch, by_width) < 1e-6);
  CHECK(support::softmax_error(batch, by_width) < 1e-6);

  // Another Δ: w = 1, 1 + 4/8, 1 + 12/8.
  double other = 0;
  for (std::size_t g = 0; g < 3; ++g)
    other += 3 / (81 * k) * n[g] * std::vector{1.0, 1.5, 2.5}[g] * p[g];
  CHECK(batch.evaluate(group_balance{0.8, {}, 8}) == doctest::Approx(other).epsilon(1e-13));
}

TEST_CASE("at balance the mean of the groups' weights; 1 for equal widths") {
  support::routing_batch batch(8, 4);
  batch.set([](std::size_t, std::size_t) { return 0.0; },
            [](std::size_t t, std::size_t e) { return e / 2 == t % 2; }); // each token takes one group as a whole
  batch.widths = {10, 10, 30, 30};
  CHECK(batch.evaluate(group_balance{}) == doctest::Approx(1.5).epsilon(1e-14)); // w = 1, 2
  batch.widths = {10, 10, 10, 10};
  CHECK(batch.evaluate(group_balance{1, {2, 2}}) == doctest::Approx(1).epsilon(1e-14));
  CHECK(batch.evaluate(group_balance{}) == doctest::Approx(1).epsilon(1e-14)); // one group
}

TEST_CASE("groups of one expert and of equal width: load_balance with value 1 at balance") {
  support::random_source random(132);
  support::routing_batch batch(8, 4);
  batch.randomize(random);
  batch.widths = {5, 5, 5, 5};
  const hmoe::losses::load_balance to_one{1, hmoe::losses::balance_counts::all_choices,
                                          hmoe::losses::balance_normalization::to_one};
  CHECK(batch.evaluate(group_balance{1, {1, 1, 1, 1}}) == doctest::Approx(batch.evaluate(to_one)).epsilon(1e-13));
}

TEST_CASE("group sizes must add up to the experts") {
  support::routing_batch batch(3, 4);
  CHECK_THROWS_WITH_AS(batch.evaluate(group_balance{1, {2, 1}}), doctest::Contains("have 3 experts in all"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS(batch.evaluate(group_balance{1, {2, 3}}), doctest::Contains("2 of 4 are left"), hmoe::error);
  CHECK_THROWS_AS(batch.evaluate(group_balance{1, {4, 0}}), hmoe::error);
  CHECK_THROWS_AS(batch.evaluate(group_balance{1, {}, -1}), hmoe::error);
}

TEST_CASE("group_balance without tokens") {
  support::routing_batch none(0, 4), unrouted(3, 4);
  CHECK(none.evaluate(group_balance{}) == 0);
  CHECK(unrouted.evaluate(group_balance{}) == 0);
}
