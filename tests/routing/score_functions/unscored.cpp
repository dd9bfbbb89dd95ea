// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/unscored.hpp>

#include "routing/score_functions/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace routing = hmoe::routing;
using namespace functions;

TEST_CASE("unscored is what its formula says") {
  const std::vector<double> z{-30, -2, -0.5, 0, 0.5, 2, 30};
  CHECK(scores(routing::unscored{}, z) == z);
}

TEST_CASE("unscored neither overflows nor hides a NaN") {
  CHECK(std::isnan(scores(routing::unscored{}, std::vector<float>{std::numeric_limits<float>::quiet_NaN()})[0]));
}

TEST_CASE("the backward of unscored is its derivative, added to the sink") { check_backward<routing::unscored>(); }
