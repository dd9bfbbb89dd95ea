// SPDX-License-Identifier: MIT
#include <hmoe/losses/router_entropy.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <cmath>

using hmoe::losses::router_entropy;

TEST_CASE("router_entropy is the mean of −Σ p ln p") {
  support::random_source random(81);
  support::routing_batch batch(7, 5);
  batch.randomize(random);
  double expected = 0;
  for (std::size_t t = 0; t < 7; ++t)
    for (std::size_t e = 0; e < 5; ++e) {
      const double p = batch.trace.probabilities()(t, e);
      expected += -p * std::log(p) / 7;
    }
  CHECK(expected > 0);
  CHECK(batch.evaluate(router_entropy{}) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(batch.gradient_error_of(router_entropy{0.6}) < 1e-6);
}

TEST_CASE("its values for uniform and for certain probabilities") {
  support::routing_batch batch(3, 8);
  CHECK(batch.evaluate(router_entropy{}) == doctest::Approx(std::log(8.0)).epsilon(1e-14));
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t e = 0; e < 8; ++e)
      batch.trace.probabilities()(t, e) = e == t ? 1 : 0;
  batch.trace.clear_gradients();
  CHECK(batch.evaluate(router_entropy{}) == 0);
  for (std::size_t e = 0; e < 8; ++e)
    CHECK(std::isfinite(batch.trace.d_probabilities()(0, e)));
}

TEST_CASE("minimising it sharpens the router") {
  support::random_source random(82);
  support::routing_batch batch(4, 5);
  batch.randomize(random);
  const double before = batch.evaluate(router_entropy{1});
  std::vector<double> largest_before;
  for (std::size_t t = 0; t < 4; ++t) {
    const auto p = batch.trace.probabilities().row(t);
    largest_before.push_back(*std::max_element(p.begin(), p.end()));
  }
  for (std::size_t t = 0; t < 4; ++t) { // one step of gradient descent on the logits
    double dot = 0;
    for (std::size_t e = 0; e < 5; ++e)
      dot += batch.trace.d_probabilities()(t, e) * batch.trace.probabilities()(t, e);
    for (std::size_t e = 0; e < 5; ++e)
      batch.trace.logits()(t, e) -= batch.trace.probabilities()(t, e) * (batch.trace.d_probabilities()(t, e) - dot);
  }
  batch.update_probabilities();
  CHECK(batch.evaluate(router_entropy{1}) < before);
  for (std::size_t t = 0; t < 4; ++t) {
    const auto p = batch.trace.probabilities().row(t);
    CHECK(*std::max_element(p.begin(), p.end()) > largest_before[t]);
  }
}
