// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/equal_weights.hpp>

#include "routing/weightings/one_row.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using namespace one_row;

TEST_CASE("weights are 1 over the number of chosen experts") {
  check_equal(weights(routing::equal_weights{}), {1.0 / 3, 1.0 / 3, 1.0 / 3});
}
