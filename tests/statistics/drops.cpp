// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/statistics/drops.hpp>

#include "statistics/assignments.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace hmoe::statistics;

namespace {

/// Two experts of capacity 1 each, with a padding slot: of entries 0…3 the first of each expert is kept.
///   token 0: experts 0, 1   token 1: expert 0   token 2: none   token 3: expert 1
hmoe::plan capped_plan() {
  hmoe::plan plan;
  plan.resize(2, 4, 4);
  plan.resize_slots(3, 1);
  std::ranges::copy(std::vector<hmoe::index_t>{0, 1, 3}, plan.offsets().begin());
  std::ranges::copy(std::vector<hmoe::index_t>{0, 0, hmoe::no_index}, plan.tokens().begin());
  std::ranges::copy(std::vector<hmoe::index_t>{0, 1, hmoe::no_index}, plan.entries().begin());
  std::ranges::copy(std::vector<hmoe::index_t>{0, 1, hmoe::no_index, hmoe::no_index}, plan.slots().begin());
  return plan;
}

} // namespace

TEST_CASE("what capacity dropped, and who is left without an expert") {
  const auto assigned = support::make_assignment({{0, 1}, {0}, {}, {1}});
  const hmoe::plan plan = capped_plan();
  CHECK(drop_rate(plan) == 0.5);
  CHECK(padding_rate(plan) == doctest::Approx(1.0 / 3).epsilon(1e-14));
  CHECK(dropped_per_expert(assigned, plan) == std::vector<std::uint64_t>{1, 1});
  CHECK(unrouted_rate(assigned) == 0.25);
  CHECK(unserved_rate(assigned, plan) == 0.75);
}

TEST_CASE("a dropless plan drops nothing") {
  const auto assigned = support::make_assignment({{0, 1}, {0}, {}, {1}});
  hmoe::plan plan;
  hmoe::dispatch::build_plan(assigned, 3, plan);
  CHECK(drop_rate(plan) == 0);
  CHECK(padding_rate(plan) == 0);
  CHECK(dropped_per_expert(assigned, plan) == std::vector<std::uint64_t>{0, 0, 0});
  CHECK(unserved_rate(assigned, plan) == unrouted_rate(assigned));
}

TEST_CASE("no tokens; a plan of another assignment") {
  const auto nothing = support::make_assignment({});
  hmoe::plan plan;
  hmoe::dispatch::build_plan(nothing, 2, plan);
  CHECK(drop_rate(plan) == 0);
  CHECK(padding_rate(plan) == 0);
  CHECK(unrouted_rate(nothing) == 0);
  CHECK(unserved_rate(nothing, plan) == 0);
  const auto other = support::make_assignment({{0}});
  CHECK_THROWS_AS((void)dropped_per_expert(other, plan), hmoe::error);
  CHECK_THROWS_AS((void)unserved_rate(other, plan), hmoe::error);
}
