// SPDX-License-Identifier: MIT
#include <hmoe/losses/adaptive_l1.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::adaptive_l1;
using hmoe::losses::sparsity_controller;

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

TEST_CASE("the controller grows λ while too much is active, and shrinks it else") {
  support::random_source random(173);
  support::routing_batch batch(50, 8);
  sparsity_controller controller(8, 2); // wants 75 % inactive
  CHECK(controller.lambda() == 1e-8);
  CHECK(controller.update() == 1e-8); // nothing was added

  set_scores(random, batch, 0.5);
  controller.add(std::as_const(batch).trace);
  CHECK(controller.sparsity() == doctest::Approx(0.5).epsilon(0.2));
  CHECK(controller.update() == doctest::Approx(1.2e-8).epsilon(1e-14));
  CHECK(controller.loss().coefficient == controller.lambda());
  CHECK(controller.loss().target_experts == 2);

  set_scores(random, batch, 0.05);
  controller.add(std::as_const(batch).trace);
  CHECK(controller.update() == doctest::Approx(1e-8).epsilon(1e-14));
  CHECK(controller.sparsity() == 0); // a new step
}

TEST_CASE("the controller sees all layers and processes together") {
  support::routing_batch dense(10, 4), sparse(10, 4); // probabilities of the first are all positive
  for (std::size_t t = 0; t < 10; ++t)
    std::ranges::fill(sparse.trace.probabilities().row(t), 0.0);
  sparsity_controller controller(4, 2);
  controller.add(std::as_const(dense).trace);
  controller.add(std::as_const(sparse).trace, [](std::span<std::uint64_t> counts) {
    CHECK(counts.size() == 2);
    CHECK(counts[0] == 0);
    CHECK(counts[1] == 40);
    counts[1] *= 3; // three processes with the same batch
  });
  CHECK(controller.sparsity() == doctest::Approx(0.75).epsilon(1e-14));
  CHECK(controller.update() == doctest::Approx(1e-8 / 1.2).epsilon(1e-14));
}

TEST_CASE("the controller refuses what cannot work") {
  CHECK_THROWS_AS(sparsity_controller(4, 0), hmoe::error);
  CHECK_THROWS_AS(sparsity_controller(4, 5), hmoe::error);
  CHECK_THROWS_AS(sparsity_controller(4, 2, 0), hmoe::error);
  CHECK_THROWS_AS(sparsity_controller(4, 2, 1e-8, 1), hmoe::error);
}
