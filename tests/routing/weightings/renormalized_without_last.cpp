// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/renormalized_without_last.hpp>

#include "routing/weightings/one_row.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using namespace one_row;

TEST_CASE("the last expert has weight 0, the others are renormalized") {
  check_equal(weights(routing::renormalized_without_last{}), {0.2, 0.8, 0});
  check_equal(weights(routing::renormalized_without_last{}, {3}), {0});
  check_equal(weights(routing::renormalized_without_last{}, {0, 1}), {1.0 / 3, 2.0 / 3});
  check_equal(weights(routing::renormalized_without_last{1}, {0, 1}), {0.1, 0.2});
}
