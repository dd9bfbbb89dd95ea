// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/normalized.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include "routing/weightings/one_row.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace routing = hmoe::routing;
using support::error_of;

TEST_CASE("a norm of any order, with epsilon added or as a lower bound") { // p of the chosen: 0.1, 0.4, 0.3
  using routing::epsilon_use;
  one_row::check_equal(one_row::weights(routing::normalized<>{}), {0.125, 0.5, 0.375});
  const double two = std::sqrt(0.26), three = std::cbrt(0.092);
  one_row::check_equal(one_row::weights(routing::normalized<>{.order = 2}), {0.1 / two, 0.4 / two, 0.3 / two});
  one_row::check_equal(one_row::weights(routing::normalized<>{.order = 3, .epsilon = 1}),
                       {0.1 / (three + 1), 0.4 / (three + 1), 0.3 / (three + 1)});
  one_row::check_equal(one_row::weights(routing::normalized<>{.order = 2, .epsilon = 2, .use = epsilon_use::clamped}),
                       {0.05, 0.2, 0.15});
  const double a = one_row::sigma(0.5), b = one_row::sigma(2), c = one_row::sigma(0.25), sum = a + b + c;
  one_row::check_equal(one_row::weights(routing::normalized<routing::sigmoid_of_logit>{}), {a / sum, b / sum, c / sum});
  CHECK(one_row::weights(routing::normalized<>{}, {}).empty());
}

TEST_CASE("a norm that cannot be is refused, also of the inner weighting") {
  CHECK(error_of([] { routing::normalized<>{.order = 0.5}.validate(2); }) ==
        "hmoe: normalized with order = 0.5: the order of the norm must be finite and at least 1");
  CHECK(error_of([] { routing::normalized<>{.epsilon = -1}.validate(2); }) ==
        "hmoe: normalized with epsilon = -1: it must be finite and not below 0");
  CHECK(error_of([] { routing::normalized<>{.order = std::numeric_limits<double>::infinity()}.validate(2); }) !=
        "no error");
  CHECK(error_of([] { routing::normalized<routing::normalized<>>{.inner = {.order = 0}}.validate(2); }) ==
        "hmoe: normalized with order = 0: the order of the norm must be finite and at least 1");
}
