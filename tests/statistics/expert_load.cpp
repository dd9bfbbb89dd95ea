// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/statistics/expert_load.hpp>

#include "statistics/assignments.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using hmoe::statistics::expert_load;
using support::make_assignment;
using counts = std::vector<std::uint64_t>;

TEST_CASE("tokens per expert, of assignment, plan and trace alike") {
  const auto assigned = make_assignment({{0, 2}, {2}, {}, {1, 2}});
  expert_load by_assignment(4), by_plan(4), by_trace(3);
  by_assignment.add(assigned);
  CHECK(by_assignment.tokens_per_expert == counts{1, 1, 3, 0});
  CHECK(by_assignment.tokens == 4);
  CHECK(by_assignment.activations() == 5);
  CHECK(by_assignment.experts_per_token() == 1.25);

  hmoe::plan plan;
  hmoe::dispatch::build_plan(assigned, 4, plan);
  by_plan.add(plan, assigned.tokens());
  CHECK(by_plan.tokens_per_expert == by_assignment.tokens_per_expert);
  CHECK(by_plan.tokens == 4);

  hmoe::router_trace<float> trace;
  trace.resize(4, 3, 0, false);
  std::ranges::copy(counts{1, 1, 3}, trace.tokens_per_expert().begin());
  by_trace.add(trace);
  CHECK(by_trace.tokens_per_expert == counts{1, 1, 3});
  CHECK(by_trace.tokens == 4);
}

TEST_CASE("a plan's padding does not count") {
  hmoe::plan plan;
  plan.resize(2, 4, 3);
  plan.resize_slots(4, 2);
  std::ranges::copy(std::vector<hmoe::index_t>{0, 2, 4}, plan.offsets().begin());
  std::ranges::copy(std::vector<hmoe::index_t>{0, hmoe::no_index, 1, hmoe::no_index}, plan.tokens().begin());
  expert_load load(2);
  load.add(plan, 2);
  CHECK(load.tokens_per_expert == counts{1, 1});
}

TEST_CASE("batches add up, and parts merge") {
  expert_load all(3), first(3), second(3);
  for (const auto& assigned : {make_assignment({{0}, {1, 2}}), make_assignment({{1}}), make_assignment({})}) {
    all.add(assigned);
    (first.tokens == 0 ? first : second).add(assigned);
  }
  first.merge(second);
  CHECK(first.tokens_per_expert == all.tokens_per_expert);
  CHECK(first.tokens == 3);
  CHECK(all.tokens_per_expert == counts{1, 2, 1});
}

TEST_CASE("shares, and costs per expert and per token") {
  expert_load load(3);
  CHECK(load.shares() == std::vector<double>{0, 0, 0});
  CHECK(load.per_token(std::vector{1.0, 2.0, 3.0}) == 0);
  load.add(make_assignment({{0, 2}, {2}, {2}, {}}));
  CHECK(load.shares() == std::vector<double>{0.25, 0, 0.75});
  CHECK(load.times(std::vector<std::size_t>{10, 20, 40}) == std::vector<double>{10, 0, 120});
  CHECK(load.per_token(std::vector<std::size_t>{10, 20, 40}) == 130.0 / 4);
  // Weights are read where there is a token; 8 bytes for each token.
  CHECK(load.bytes(std::vector<std::size_t>{100, 200, 400}, 8) == std::vector<double>{108, 0, 424});
}

TEST_CASE("what does not fit is refused before anything is counted") {
  expert_load load(2);
  CHECK_THROWS_WITH_AS(load.add(make_assignment({{0}, {2}})), doctest::Contains("expert 2"), hmoe::error);
  CHECK(load.activations() == 0);
  CHECK_THROWS_AS(load.merge(expert_load(3)), hmoe::error);
  CHECK_THROWS_AS((void)load.times(std::vector{1.0}), hmoe::error);
  CHECK_THROWS_AS((void)load.bytes(std::vector{1.0}, 1), hmoe::error);
}
