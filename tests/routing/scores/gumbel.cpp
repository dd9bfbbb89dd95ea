// SPDX-License-Identifier: MIT
#include <hmoe/routing/preference.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/linear.hpp>

#include "routing/scores/logits.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;
using support::error_of;

TEST_CASE("Gumbel noise makes the top expert a draw from the softmax") {
  routing::gumbel<linear<double>> score(1, 3);
  score.inner().weight()(0, 0) = std::log(0.2);
  score.inner().weight()(1, 0) = std::log(0.5);
  score.inner().weight()(2, 0) = std::log(0.3);
  matrix<double> x(20000, 1);
  for (std::size_t t = 0; t < x.rows(); ++t)
    x(t, 0) = 1;
  CHECK(logits_of(score, x).logits()(0, 1) == std::log(0.5));
  const auto trace = logits_of(score, x, with_noise());
  std::vector<double> rate(3);
  for (std::size_t t = 0; t < x.rows(); ++t)
    rate[routing::next_preferred(trace.logits().row(t), hmoe::no_index)] += 1.0 / 20000;
  CHECK(rate[0] == doctest::Approx(0.2).epsilon(0.05));
  CHECK(rate[1] == doctest::Approx(0.5).epsilon(0.05));
  CHECK(rate[2] == doctest::Approx(0.3).epsilon(0.05));
}

TEST_CASE("gumbel refuses what cannot be, with the numbers") {
  CHECK(error_of([] { routing::gumbel<linear<double>>(d, experts, -2); }) ==
        "hmoe: gumbel with scale = -2: it must be finite and not below 0");
}
