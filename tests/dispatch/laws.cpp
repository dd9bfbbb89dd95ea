// SPDX-License-Identifier: MIT
// The laws on every dispatch strategy, with every capacity and order of dropping.
#include <hmoe/dispatch/automatic.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/testing/dispatch_laws.hpp>

#include <doctest/doctest.h>

#include <limits>

namespace capacity = hmoe::capacity;
using hmoe::dispatch::padded;
using hmoe::dispatch::sorted;

namespace {
void check(const auto& dispatch, const hmoe::testing::dispatch_options& options = {}) {
  CHECK(hmoe::testing::check_dispatch(dispatch, options).text() == "");
}
} // namespace

TEST_CASE("strategies that drop nothing") {
  const capacity::by_factor infinite{std::numeric_limits<double>::infinity()};
  check(hmoe::dispatch::dense{});
  check(hmoe::dispatch::looped{});
  check(hmoe::dispatch::scattered{});
  check(hmoe::dispatch::per_token{});
  check(hmoe::dispatch::automatic{});
  check(hmoe::dispatch::blocked<1>{});
  check(hmoe::dispatch::blocked<32>{});
  check(hmoe::dispatch::blocked<>{7});
  check(sorted{});
  check(sorted{infinite});
  check(sorted{infinite, capacity::keep_first{}, capacity::renormalize_kept{}});
  check(padded{infinite});
  check(padded{capacity::busiest{}});
}

TEST_CASE("strategies that drop") {
  check(sorted{capacity::by_factor{0.7}, capacity::keep_first{}}, {.drops = true});
  check(sorted{capacity::by_width{0.8}, capacity::keep_heaviest{}}, {.drops = true});
  check(sorted{capacity::moe_plus_plus{0.6}, capacity::keep_first_choices{}}, {.drops = true});
  check(padded{capacity::by_factor{0.7}, capacity::keep_heaviest{}}, {.drops = true});
  check(sorted{capacity::per_group<>{.tokens = 8, .inner = {0.7}}}, {.drops = true});
  check(padded{capacity::fixed{7}, capacity::keep_random{hmoe::seed{3}}}, {.drops = true});
}
