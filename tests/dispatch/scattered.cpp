// SPDX-License-Identifier: MIT
// Banks that gather and scatter in their kernels: tests/backends/simd/packed_bank.cpp.
#include <hmoe/dispatch/scattered.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

TEST_CASE("scattered agrees with dense, for kinds of experts that cannot gather themselves") {
  support::check_strategy<float>(hmoe::dispatch::scattered{});
  support::check_strategy<double>(hmoe::dispatch::scattered{});
}
