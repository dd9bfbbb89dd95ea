// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/relu.hpp>

#include "routing/score_functions/check.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace routing = hmoe::routing;
using namespace functions;

TEST_CASE("relu is what its formula says") {
  const std::vector<double> z{-30, -2, -0.5, 0, 0.5, 2, 30};
  const auto p = scores(routing::relu{}, z);
  for (std::size_t i = 0; i < z.size(); ++i)
    CHECK(p[i] == std::max(z[i], 0.0));
}

TEST_CASE("relu neither overflows nor hides a NaN") {
  CHECK(std::isnan(scores(routing::relu{}, std::vector<float>{std::numeric_limits<float>::quiet_NaN()})[0]));
}

TEST_CASE("the backward of relu is its derivative, added to the sink") { check_backward<routing::relu>(); }
