// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/sorted.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

TEST_CASE("sorted has the bits of dense, on any threads and in any batch") {
  support::check_strategy<float>(hmoe::dispatch::sorted{});
}
