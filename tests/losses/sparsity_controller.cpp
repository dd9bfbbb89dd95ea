// SPDX-License-Identifier: MIT
#include <hmoe/losses/sparsity_controller.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

using hmoe::losses::sparsity_controller;

namespace {

/// ReLU scores: about `active` of them positive, and none near 0.
void set_scores(support::random_source& random, support::routing_batch& batch, double active) {
  for (std::size_t t = 0; t < batch.tokens(); ++t)
    for (double& score : batch.trace.probabilities().row(t))
      score = random.real(0, 1) < active ? random.real(0.2, 1) : 0;
}

} // namespace

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
