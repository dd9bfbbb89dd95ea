// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/positive.hpp>

#include "routing/selections/coarse_rows.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace routing = hmoe::routing;
using namespace coarse;

TEST_CASE("positive chooses what is above zero, none included") {
  CHECK(choose(routing::positive{}, std::vector<double>{0.5, 0, -1, 1e-300}) == ids{0, 3});
  CHECK(choose(routing::positive{}, std::vector<double>{0, -1}).empty());
  CHECK(choose(routing::positive{}, std::vector<float>{0, NAN}) == ids{1});
}
