// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/per_token.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

TEST_CASE("per_token has the bits of dense, on any threads and in any batch") {
  support::check_strategy<float>(hmoe::dispatch::per_token{});
  support::check_strategy<double>(hmoe::dispatch::per_token{});
}
