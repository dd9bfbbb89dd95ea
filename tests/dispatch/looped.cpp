// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/looped.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

TEST_CASE("looped has the bits of dense, on any threads and in any batch") {
  support::check_strategy<float>(hmoe::dispatch::looped{});
}
