// SPDX-License-Identifier: MIT
// The laws on every capacity and every order of dropping.
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/testing/capacity_laws.hpp>
#include <hmoe/testing/drop_order_laws.hpp>

#include <doctest/doctest.h>

#include <limits>

namespace capacity = hmoe::capacity;

namespace {
void check(const auto& limit) { CHECK(hmoe::testing::check_capacity(limit).text() == ""); }
void check_order(const auto& order) { CHECK(hmoe::testing::check_drop_order(order).text() == ""); }
} // namespace

TEST_CASE("capacities") {
  check(capacity::no_capacity{});
  for (const auto round : {capacity::rounding::up, capacity::rounding::down})
    for (const std::size_t minimum : {0U, 1U, 5U}) {
      for (const double factor : {0.3, 1.0, 1.25, 4.0, std::numeric_limits<double>::infinity()})
        check(capacity::by_factor{factor, minimum, round});
      for (const double factor : {0.3, 1.0, 1.25, 4.0})
        for (const auto total : {capacity::conserve::flops, capacity::conserve::rows})
          check(capacity::by_width{factor, minimum, round, total});
      check(capacity::moe_plus_plus{1.1, 0.75, minimum, round});
      check(capacity::moe_plus_plus{0.4, 3, minimum, round});
    }
  check(capacity::fixed{1});
  check(capacity::fixed{64});
  check(capacity::busiest{});
  check(capacity::per_group<>{.tokens = 16});
  check(capacity::per_group<capacity::busiest>{.tokens = 3});
}

TEST_CASE("orders of dropping") {
  check_order(capacity::keep_first{});
  check_order(capacity::keep_heaviest{});
  check_order(capacity::keep_first_choices{});
  check_order(capacity::keep_random{hmoe::seed{3}});
}
