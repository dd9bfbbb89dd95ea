// SPDX-License-Identifier: MIT
#include <hmoe/losses/compute_cost.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::compute_cost;

TEST_CASE("compute_cost is Σ P̂_i c_i / mean(c)") {
  support::random_source random(161);
  support::routing_batch batch(9, 4);
  batch.randomize(random);
  batch.widths = {2, 4, 8, 10}; // mean 6
  const auto formula = [&](const std::vector<double>& relative) {
    double value = 0;
    for (std::size_t e = 0; e < 4; ++e)
      value += batch.mean_probability(e) * relative[e];
    return doctest::Approx(value).epsilon(1e-13);
  };
  CHECK(batch.evaluate(compute_cost{}) == formula({2 / 6.0, 4 / 6.0, 8 / 6.0, 10 / 6.0}));
  CHECK(batch.evaluate(compute_cost{1, {0, 0, 1, 3}}) == formula({0, 0, 1, 3}));
  CHECK(support::sink_error(batch, compute_cost{0.9}) < 1e-6);
  CHECK(support::softmax_error(batch, compute_cost{0.9}) < 1e-6);
}

TEST_CASE("1 for uniform probabilities, and for equal costs") {
  support::random_source random(162);
  support::routing_batch batch(5, 4);
  batch.widths = {2, 4, 8, 10};
  CHECK(batch.evaluate(compute_cost{}) == doctest::Approx(1).epsilon(1e-14));
  batch.randomize(random);
  CHECK(batch.evaluate(compute_cost{1, {3, 3, 3, 3}}) == doctest::Approx(1).epsilon(1e-14));
}

TEST_CASE("compute_cost: no tokens, and impossible costs") {
  support::routing_batch none(0, 2);
  CHECK(none.evaluate(compute_cost{}) == 0);
  CHECK_THROWS_WITH_AS(none.evaluate(compute_cost{1, {1}}), doctest::Contains("1 costs for 2"), hmoe::error);
  none.widths = {0, 0};
  CHECK_THROWS_WITH_AS(none.evaluate(compute_cost{}), doctest::Contains("must be positive"), hmoe::error);
}
