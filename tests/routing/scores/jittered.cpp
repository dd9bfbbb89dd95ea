// SPDX-License-Identifier: MIT
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/linear.hpp>

#include "routing/scores/logits.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;
using support::error_of;

TEST_CASE("jitter multiplies each input value by its own factor within 1 - epsilon and 1 + epsilon") {
  routing::jittered<linear<double>> score(3, 3, 0.1);
  for (std::size_t i = 0; i < 3; ++i)
    score.inner().weight()(i, i) = 1; // the logits are the input that it sees
  matrix<double> x(3000, 3);
  for (std::size_t i = 0; i < x.size(); ++i)
    x.data()[i] = 2;
  CHECK(logits_of(score, x).logits()(7, 1) == 2);
  const auto trace = logits_of(score, x, with_noise());
  double lowest = 9, highest = 0, sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double factor = trace.logits().data()[i] / 2;
    lowest = std::min(lowest, factor);
    highest = std::max(highest, factor);
    sum += factor;
  }
  CHECK(lowest > 0.9);
  CHECK(lowest < 0.901);
  CHECK(highest < 1.1);
  CHECK(highest > 1.099);
  CHECK(sum / 9000 == doctest::Approx(1).epsilon(0.002));
}

TEST_CASE("jittered refuses what cannot be, with the numbers") {
  CHECK(error_of([] { routing::jittered<linear<double>>(d, experts, 1); }) ==
        "hmoe: jittered with epsilon = 1: it must be in [0, 1)");
}
