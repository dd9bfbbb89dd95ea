// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::zero_cost_balance;

TEST_CASE("zero_cost_balance is Σ η_i f_i P̂_i, with τ for experts of width 0") {
  support::random_source random(151);
  support::routing_batch batch(9, 4);
  batch.randomize(random);
  batch.widths = {7, 0, 3, 0};
  const auto formula = [&](const std::vector<double>& eta) {
    double value = 0;
    for (std::size_t e = 0; e < 4; ++e)
      value += eta[e] * batch.rate(e) * batch.mean_probability(e);
    return doctest::Approx(value).epsilon(1e-13);
  };
  CHECK(batch.evaluate(zero_cost_balance{}) == formula({1, 0.75, 1, 0.75}));
  CHECK(batch.evaluate(zero_cost_balance{1, 0.25}) == formula({1, 0.25, 1, 0.25}));
  CHECK(batch.evaluate(zero_cost_balance{1, 0.25, {4, 3, 2, 1}}) == formula({4, 3, 2, 1}));
  CHECK(support::sink_error(batch, zero_cost_balance{0.9}) < 1e-6);
  CHECK(support::softmax_error(batch, zero_cost_balance{0.9}) < 1e-6);
}

TEST_CASE("at uniform f and P̂ it is K mean(η) / N; with η = 1 it is load_balance / N") {
  support::random_source random(152);
  support::routing_batch batch(8, 4);
  batch.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t t, std::size_t e) { return (t + e) % 4 < 2; });
  batch.widths = {7, 7, 7, 0};
  CHECK(batch.evaluate(zero_cost_balance{}) == doctest::Approx(2 * (3 + 0.75) / 4 / 4).epsilon(1e-14));
  batch.randomize(random);
  CHECK(batch.evaluate(zero_cost_balance{}) ==
        doctest::Approx(batch.evaluate(hmoe::losses::load_balance{}) / 4).epsilon(1e-13));
}

TEST_CASE("zero_cost_balance: no tokens, and an eta of the wrong size") {
  support::routing_batch none(0, 4);
  CHECK(none.evaluate(zero_cost_balance{}) == 0);
  CHECK_THROWS_WITH_AS(none.evaluate(zero_cost_balance{1, 1, {1, 2}}), doctest::Contains("2 values for 4"),
                       hmoe::error);
}
