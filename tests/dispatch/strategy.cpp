// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/strategy.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

using namespace hmoe::dispatch;

TEST_CASE("names of strategies are read back, others are refused") {
  for (std::size_t i = 0; i < strategy_count; ++i)
    CHECK(strategy_of(name_of(static_cast<strategy>(i))) == static_cast<strategy>(i));
  CHECK(support::error_of([] {
          static_cast<void>(strategy_of("fast"));
        }).starts_with("hmoe: no dispatch strategy is called \"fast\""));
}
