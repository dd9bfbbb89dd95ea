// SPDX-License-Identifier: MIT
#include <hmoe/losses/z.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <cmath>

TEST_CASE("z is the mean square of log Σ e^logit") {
  support::random_source random(91);
  support::routing_batch batch(7, 5);
  batch.randomize(random);
  double expected = 0;
  for (std::size_t t = 0; t < 7; ++t) {
    double sum = 0;
    for (std::size_t e = 0; e < 5; ++e)
      sum += std::exp(batch.trace.logits()(t, e));
    expected += std::log(sum) * std::log(sum) / 7;
  }
  CHECK(batch.evaluate(hmoe::losses::z{}) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(batch.gradient_error_of(hmoe::losses::z{0.6}) < 1e-6);
  for (std::size_t t = 0; t < 7; ++t)
    for (std::size_t e = 0; e < 5; ++e)
      CHECK(batch.trace.d_probabilities()(t, e) == 0);
}

TEST_CASE("its value at logits of zero is (ln N)², and large logits do not overflow") {
  support::routing_batch batch(3, 8);
  CHECK(batch.evaluate(hmoe::losses::z{}) == doctest::Approx(std::log(8.0) * std::log(8.0)).epsilon(1e-14));
  batch.set([](std::size_t, std::size_t) { return 1000.0; }, [](std::size_t, std::size_t) { return false; });
  const double lse = 1000 + std::log(8.0);
  CHECK(batch.evaluate(hmoe::losses::z{}) == doctest::Approx(lse * lse).epsilon(1e-14));
}
