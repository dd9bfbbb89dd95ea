// SPDX-License-Identifier: MIT
#include <hmoe/losses/adaptive_l1.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::adaptive_l1;

namespace {

/// ReLU scores: about `active` of them positive, and none near 0.
void set_scores(support::random_source& random, support::routing_batch& batch, double active) {
  for (std::size_t t = 0; t < batch.tokens(); ++t)
    for (double& score : batch.trace.probabilities().row(t))
      score = random.real(0, 1) < active ? random.real(0.2, 1) : 0;
}

} // namespace

TEST_CASE("adaptive_l1 is Σ f_i R_{t,i} / T with f = N/(K T) · active tokens") {
  support::random_source random(171);
  support::routing_batch batch(9, 5);
  set_scores(random, batch, 0.5);
  double expected = 0, norm = 0;
  for (std::size_t e = 0; e < 5; ++e) {
    double active = 0, sum = 0;
    for (std::size_t t = 0; t < 9; ++t) {
      active += batch.trace.probabilities()(t, e) > 0 ? 1 : 0;
      sum += batch.trace.probabilities()(t, e);
    }
    expected += 5 / (2.0 * 9) * active * sum / 9;
    norm += sum / 9;
  }
  CHECK(batch.evaluate(adaptive_l1{1, 2}) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(batch.evaluate(adaptive_l1{1, 2, false}) == doctest::Approx(norm).epsilon(1e-13));
}

TEST_CASE("its gradient, with f constant") {
  support::random_source random(172);
  support::routing_batch batch(9, 5);
  set_scores(random, batch, 2); // all active: finite differences must not cross 0
  CHECK(support::sink_error(batch, adaptive_l1{0.7, 2}) < 1e-6);
  CHECK(support::sink_error(batch, adaptive_l1{0.7, 2, false}) < 1e-6);
}

TEST_CASE("at balance it is the mean L1 norm of a token's scores") {
  support::routing_batch batch(8, 4);
  for (std::size_t t = 0; t < 8; ++t)
    for (std::size_t e = 0; e < 4; ++e)
      batch.trace.probabilities()(t, e) = (t + e) % 4 < 2 ? 0.25 : 0;
  CHECK(batch.evaluate(adaptive_l1{1, 2}) == doctest::Approx(0.5).epsilon(1e-14));
  CHECK(batch.evaluate(adaptive_l1{1, 2, false}) == doctest::Approx(0.5).epsilon(1e-14));
  support::routing_batch none(0, 4);
  CHECK(none.evaluate(adaptive_l1{1, 2}) == 0);
  CHECK_THROWS_WITH_AS(batch.evaluate(adaptive_l1{1, 0}), doctest::Contains("must be positive"), hmoe::error);
}
