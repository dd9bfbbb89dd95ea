// SPDX-License-Identifier: MIT
#include <hmoe/losses/of_tokens.hpp>

#include "losses/own_loss.hpp"
#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

TEST_CASE("of_tokens is the mean of a function over tokens") {
  support::random_source random(17);
  support::routing_batch batch(7, 5);
  batch.randomize(random);
  const hmoe::losses::of_tokens<support::margin> loss{0.6};
  double expected = 0;
  for (std::size_t t = 0; t < 7; ++t) {
    double sum = 0;
    for (const hmoe::index_t e : batch.assigned.experts_of(t))
      sum += batch.trace.probabilities()(t, e) * batch.trace.logits()(t, e);
    expected += sum / 7;
  }
  CHECK(batch.evaluate(loss) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(batch.gradient_error_of(loss) < 1e-6);
  CHECK(loss.name == "margin");
}
