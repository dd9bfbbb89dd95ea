// SPDX-License-Identifier: MIT
#include <hmoe/routing/scores/no_score.hpp>

#include "routing/scores/logits.hpp"

#include <doctest/doctest.h>

#include <cstddef>

namespace routing = hmoe::routing;
using namespace score_checks;

TEST_CASE("no_score leaves every expert alike and has nothing to learn") {
  matrix<double> x(3, d);
  routing::no_score<double> score(d, experts);
  const auto trace = logits_of(score, x);
  for (std::size_t i = 0; i < 3 * experts; ++i)
    CHECK(trace.logits().data()[i] == 0);
  std::size_t visited = 0;
  score.visit_parameters([&](const auto&...) { ++visited; });
  CHECK(visited == 0);
}
