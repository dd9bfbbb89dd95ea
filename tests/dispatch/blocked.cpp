// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/blocked.hpp>

#include "dispatch/strategies.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

TEST_CASE("blocked has the bits of dense, on any threads and in any batch") {
  support::check_strategy<float>(hmoe::dispatch::blocked<3>{});
  support::check_strategy<double>(hmoe::dispatch::blocked<>{32});
}

TEST_CASE("blocks of 0 rows are refused") {
  CHECK(support::error_of([] { hmoe::dispatch::blocked<> refused{0}; }) ==
        "hmoe: dispatch::blocked with blocks of 0 rows: give at least 1");
}
