// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>

#include "routing/score_functions/check.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

using hmoe::vector_view;
namespace routing = hmoe::routing;
using namespace functions;

TEST_CASE("sqrt_softplus is what its formula says") {
  const std::vector<double> z{-30, -2, -0.5, 0, 0.5, 2, 30};
  const auto p = scores(routing::sqrt_softplus{}, z);
  for (std::size_t i = 0; i < z.size(); ++i)
    CHECK(p[i] == doctest::Approx(std::sqrt(std::log1p(std::exp(z[i])))).epsilon(1e-13));
}

TEST_CASE("sqrt_softplus neither overflows nor hides a NaN") {
  const float large = 1e4F, nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(scores(routing::sqrt_softplus{}, std::vector<float>{-large, large}) == std::vector<float>{0, 100});
  CHECK(std::isnan(scores(routing::sqrt_softplus{}, std::vector<float>{nan})[0]));
  // Far below zero the slope goes to 0 and not to 0/0.
  std::vector<float> below{-large}, p{0}, d_p{1}, d_z{5};
  routing::sqrt_softplus{}.backward(vector_view<const float>(below), vector_view<const float>(p),
                                    vector_view<const float>(d_p), vector_view<float>(d_z));
  CHECK(d_z[0] == 5);
}

TEST_CASE("the backward of sqrt_softplus is its derivative, added to the sink") {
  check_backward<routing::sqrt_softplus>();
}
