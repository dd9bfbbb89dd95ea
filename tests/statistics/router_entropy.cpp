// SPDX-License-Identifier: MIT
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/statistics/router_entropy.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

using namespace hmoe::statistics;

TEST_CASE("the statistic is the value of the loss for a softmax router") {
  support::random_source random(201);
  support::routing_batch batch(9, 5);
  batch.randomize(random);
  const double loss = batch.evaluate(hmoe::losses::router_entropy{});
  CHECK(router_entropy(batch.trace) == doctest::Approx(loss).epsilon(1e-13));
  for (std::size_t t = 0; t < 9; ++t) // a common factor changes nothing
    for (double& p : batch.trace.probabilities().row(t))
      p *= static_cast<double>(t + 1);
  CHECK(router_entropy(batch.trace) == doctest::Approx(loss).epsilon(1e-13));
}

TEST_CASE("ln N for uniform probabilities, 0 for certain ones, for no scores and for no tokens") {
  support::routing_batch uniform(3, 6), certain(3, 6), none(0, 6);
  CHECK(router_entropy(uniform.trace) == doctest::Approx(std::log(6.0)).epsilon(1e-14));
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t e = 0; e < 6; ++e)
      certain.trace.probabilities()(t, e) = e == t && t != 2 ? 1 : 0; // the third token has no score at all
  CHECK(router_entropy(certain.trace) == 0);
  CHECK(router_entropy(none.trace) == 0);
}

TEST_CASE("mean probabilities") {
  support::random_source random(202);
  support::routing_batch batch(4, 3), none(0, 3);
  batch.randomize(random);
  const std::vector<double> means = mean_probabilities(batch.trace);
  for (std::size_t e = 0; e < 3; ++e)
    CHECK(means[e] == doctest::Approx(batch.mean_probability(e)).epsilon(1e-14));
  CHECK(mean_probabilities(none.trace) == std::vector<double>{0, 0, 0});
}
