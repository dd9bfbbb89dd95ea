// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/scaled.hpp>

#include "routing/weightings/one_row.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using namespace one_row;
using support::error_of;

TEST_CASE("a scale multiplies the weights of any weighting") {
  check_equal(weights(routing::scaled<routing::raw>{2.5}), {0.25, 1, 0.75});
  check_equal(weights(routing::scaled<>{4, {0.2}}), {0.4, 1.6, 1.2});
  check_equal(weights(routing::scaled<routing::scaled<routing::raw>>{2, {3}}), {0.6, 2.4, 1.8});
  CHECK(
      error_of([] { routing::scaled<>{0}.validate(2); }) ==
      "hmoe: scaled with factor = 0: give the model's factor, finite and not 0 (1 where it has none), as in {.factor = "
      "2.5}");
  CHECK(error_of([] { routing::scaled<>{}.validate(2); }) == error_of([] { routing::scaled<>{0}.validate(2); }));
  CHECK(error_of([] { routing::scaled<>{1, {-1}}.validate(2); }) ==
        "hmoe: renormalized with epsilon = -1: it must be finite and not below 0");
}
