// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_balance.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

TEST_CASE("load_balance is N Σ f_i P̂_i") {
  support::random_source random(61);
  for (const std::size_t tokens : {1U, 2U, 17U}) {
    support::routing_batch batch(tokens, 5);
    batch.randomize(random);
    double expected = 0;
    for (std::size_t e = 0; e < 5; ++e)
      expected += 5 * batch.rate(e) * batch.mean_probability(e);
    CHECK(batch.evaluate(hmoe::losses::load_balance{}) == doctest::Approx(expected).epsilon(1e-13));
  }
}

TEST_CASE("its gradient runs through P̂ only") {
  support::random_source random(62);
  support::routing_batch batch(11, 5);
  batch.randomize(random);
  CHECK(batch.gradient_error_of(hmoe::losses::load_balance{0.7}) < 1e-6);
}

TEST_CASE("at perfect balance its value is K, the experts of a token") {
  for (const std::size_t k : {1U, 2U, 4U}) {
    support::routing_batch batch(8, 4);
    batch.set([](std::size_t, std::size_t) { return 0.0; },
              [&](std::size_t t, std::size_t e) { return (e + 4 - t % 4) % 4 < k; });
    CHECK(batch.evaluate(hmoe::losses::load_balance{}) == doctest::Approx(static_cast<double>(k)).epsilon(1e-14));
  }
}
