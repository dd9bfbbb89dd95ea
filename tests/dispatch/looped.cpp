// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/testing/dispatch_laws.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

TEST_CASE("looped has the bits of dense, on any threads and in any batch") {
  support::check_strategy<float>(hmoe::dispatch::looped{});
}

TEST_CASE("looped keeps the laws") { CHECK(hmoe::testing::check_dispatch(hmoe::dispatch::looped{}).text() == ""); }
