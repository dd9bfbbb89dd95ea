// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/build_plan.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

using hmoe::index_t;

namespace {
template <class Rule> hmoe::assignment<float> make_assignment(std::size_t tokens, std::size_t experts, Rule rule) {
  hmoe::assignment<float> assigned;
  assigned.resize_tokens(tokens);
  std::vector<index_t> ids;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t e = 0; e < experts; ++e)
      if (rule(t, e))
        ids.push_back(static_cast<index_t>(e));
    assigned.offsets()[t + 1] = static_cast<index_t>(ids.size());
  }
  assigned.resize_entries();
  std::copy(ids.begin(), ids.end(), assigned.experts().data());
  return assigned;
}

/// Everything a plan promises, from its definition.
void check_plan(const hmoe::assignment<float>& assigned, std::size_t experts, const hmoe::plan& plan) {
  REQUIRE(plan.expert_count() == experts);
  REQUIRE(plan.size() == assigned.size());
  CHECK(plan.dropped() == 0);
  CHECK(plan.offsets()[0] == 0);
  CHECK(plan.offsets()[experts] == assigned.size());
  std::vector<bool> seen(assigned.size(), false);
  for (std::size_t e = 0; e < experts; ++e) {
    REQUIRE(plan.offsets()[e] <= plan.offsets()[e + 1]);
    REQUIRE(plan.rows_of(e) == plan.offsets()[e + 1] - plan.offsets()[e]);
    for (std::size_t s = plan.offsets()[e]; s < plan.offsets()[e + 1]; ++s) {
      const index_t entry = plan.entries()[s], token = plan.tokens()[s];
      REQUIRE(entry < assigned.size());
      REQUIRE(!seen[entry]);
      seen[entry] = true;
      REQUIRE(assigned.experts()[entry] == e);
      REQUIRE(assigned.offsets()[token] <= entry);
      REQUIRE(entry < assigned.offsets()[token + 1]);
      REQUIRE(plan.slots()[entry] == s); // the inverse
      if (s > plan.offsets()[e])
        REQUIRE(plan.tokens()[s - 1] < token); // stable
    }
  }
}
} // namespace

TEST_CASE("a plan is its assignment by expert: complete, stable, with its inverse") {
  support::random_source random(121);
  hmoe::plan plan; // reused, so that what an earlier plan left must not matter
  for (int round = 0; round < 300; ++round) {
    const std::size_t tokens = random.size(0, 40), experts = random.size(1, 9);
    const double share = random.real(0, 1);
    const auto assigned =
        make_assignment(tokens, experts, [&](std::size_t, std::size_t) { return random.real(0, 1) < share; });
    hmoe::dispatch::build_plan(assigned, experts, plan);
    check_plan(assigned, experts, plan);
  }
}

TEST_CASE("uneven plans") {
  hmoe::plan plan;
  const auto check = [&](std::size_t tokens, std::size_t experts, auto rule) {
    const auto assigned = make_assignment(tokens, experts, rule);
    hmoe::dispatch::build_plan(assigned, experts, plan);
    check_plan(assigned, experts, plan);
  };
  check(10, 4, [](std::size_t, std::size_t e) { return e == 2; }); // all on one
  CHECK(plan.rows_of(2) == 10);
  CHECK(plan.rows_of(3) == 0);
  check(10, 4, [](std::size_t t, std::size_t e) { return e != 0 && t != 3; }); // an empty expert, a token without
  CHECK(plan.rows_of(0) == 0);
  check(10, 4, [](std::size_t, std::size_t) { return false; }); // none
  CHECK(plan.size() == 0);
  check(0, 4, [](std::size_t, std::size_t) { return true; });
  check(10, 1, [](std::size_t, std::size_t) { return true; });
}

TEST_CASE("an assignment whose offsets wrapped or do not fit its ids is refused, and the plan stays") {
  hmoe::plan plan;
  auto assigned = make_assignment(3, 2, [](std::size_t, std::size_t) { return true; });
  hmoe::dispatch::build_plan(assigned, 2, plan);
  REQUIRE(plan.size() == 6);
  assigned.offsets()[3] = 0;
  CHECK(support::error_of([&] { hmoe::dispatch::build_plan(assigned, 2, plan); }) ==
        "hmoe: assignment offsets of token 2 descend: 4 to 0");
  assigned.offsets()[3] = 7;
  CHECK(support::error_of([&] { hmoe::dispatch::build_plan(assigned, 2, plan); }) ==
        "hmoe: the assignment has 7 entries by its offsets, but 6 ids");
  assigned.offsets()[3] = hmoe::no_index;
  CHECK(support::error_of([&] { hmoe::dispatch::build_plan(assigned, 2, plan); }) ==
        "hmoe: an assignment of 4294967295 entries is too long for 32-bit slots");
  CHECK(plan.size() == 6);
  CHECK(plan.expert_count() == 2);
}
