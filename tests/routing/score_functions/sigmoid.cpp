// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/sigmoid.hpp>

#include "routing/score_functions/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace routing = hmoe::routing;
using namespace functions;

TEST_CASE("sigmoid is what its formula says") {
  const std::vector<double> z{-30, -2, -0.5, 0, 0.5, 2, 30};
  const auto p = scores(routing::sigmoid{}, z);
  for (std::size_t i = 0; i < z.size(); ++i)
    CHECK(p[i] == doctest::Approx(1 / (1 + std::exp(-z[i]))).epsilon(1e-13));
}

TEST_CASE("sigmoid neither overflows nor hides a NaN") {
  const float large = 1e4F, nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(scores(routing::sigmoid{}, std::vector<float>{-large, large}) == std::vector<float>{0, 1});
  CHECK(std::isnan(scores(routing::sigmoid{}, std::vector<float>{nan})[0]));
}

TEST_CASE("the backward of sigmoid is its derivative, added to the sink") { check_backward<routing::sigmoid>(); }
