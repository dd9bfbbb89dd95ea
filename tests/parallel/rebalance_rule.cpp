// SPDX-License-Identifier: MIT
#include <hmoe/parallel/by_cost.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/rebalance_rule.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

using hmoe::placement::rebalance_rule;

TEST_CASE("what moves and what it saves, by hand") {
  hmoe::placement::problem p;
  p.loads = {6, 2, 1, 1};
  p.flops_per_row = {10, 10, 20, 20};
  p.bytes = {100, 100, 200, 200};
  p.ranks = 2;
  const auto from = hmoe::placement::contiguous(4, 2);                                  // FLOPs 80 and 40
  const hmoe::expert_placement to(2, {{{0, 1.0}}, {{1, 1.0}}, {{1, 1.0}}, {{1, 1.0}}}); // 60 and 60
  CHECK(hmoe::placement::bytes_moved(from, to, p) == 100);
  CHECK(hmoe::placement::bytes_moved(to, from, p) == 100);
  CHECK(hmoe::placement::bytes_moved(from, hmoe::placement::round_robin(4, 2), p) == 200);
  CHECK(hmoe::placement::bytes_moved(from, from, p) == 0);
  rebalance_rule rule{.least_gain = 0.25, .steps = 10, .passes = 3, .state = 2, .flops_per_byte = 2.9};
  CHECK(rule.flops_saved(from, to, p) == 600);
  CHECK(rule.flops_lost(from, to, p) == doctest::Approx(580));
  CHECK(rule.pays(from, to, p));
  CHECK(!rule.pays(to, from, p));
  CHECK(!rule.pays(from, from, p));
  rule.flops_per_byte = 3.1; // weights travel longer than what they save
  CHECK(!rule.pays(from, to, p));
  rule = {.least_gain = 0.26, .steps = 1e9};
  CHECK(!rule.pays(from, to, p));
  rule.passes = -1;
  CHECK(support::error_of([&] {
          static_cast<void>(rule.pays(from, to, p));
        }).starts_with("hmoe: rebalance_rule with least_gain = 0.26"));
  // A placement of 4 experts with a problem of 3.
  for (auto* list : {&p.loads, &p.flops_per_row})
    list->pop_back();
  p.bytes.pop_back();
  CHECK(support::error_of([&] { static_cast<void>(rebalance_rule{}.pays(from, to, p)); }) ==
        "hmoe: flops_by_rank: a placement of 4 experts with 3 loads and 3 numbers of FLOPs");
  p.loads.push_back(1);
  CHECK(support::error_of([&] { static_cast<void>(hmoe::placement::imbalance(from, p)); }) ==
        "hmoe: flops_by_rank: a placement of 4 experts with 4 loads and 3 numbers of FLOPs");
  CHECK(support::error_of([&] { hmoe::placement::check_memory(from, p); }) ==
        "hmoe: placement: of 4 experts with the bytes of 3");
}

TEST_CASE("loads that swing move nothing, loads that have changed do, once") {
  constexpr std::size_t experts = 24, ranks = 4;
  const rebalance_rule rule{.least_gain = 0.1, .steps = 100, .flops_per_byte = 10};
  hmoe::placement::problem p;
  p.ranks = ranks;
  p.slots_per_rank = 8;
  for (std::size_t e = 0; e < experts; ++e) {
    p.flops_per_row.push_back(static_cast<double>(100 * (1 + e % 4)));
    p.bytes.push_back(40 * (1 + e % 4));
  }
  const auto loads_at = [&](std::size_t step) {
    std::vector<double> loads;
    for (std::size_t e = 0; e < experts; ++e) {
      const std::size_t place = step < 50 ? e : experts - 1 - e; // which expert is hot changes in the middle
      const double swing = 1 + 0.02 * static_cast<double>((step * 7 + e * 5) % 3);
      loads.push_back(swing * 1000 / static_cast<double>(1 + place));
    }
    return loads;
  };
  p.loads = loads_at(0);
  auto placed = hmoe::placement::by_cost(p);
  std::size_t moves = 0, without_rule = 0;
  auto eager = placed;
  for (std::size_t step = 0; step < 100; ++step) {
    p.loads = loads_at(step);
    auto better = hmoe::placement::by_cost(p);
    without_rule += better == eager ? 0 : 1;
    eager = better;
    if (rule.pays(placed, better, p)) {
      placed = std::move(better);
      ++moves;
      CHECK(step == 50);
    }
  }
  CHECK(moves == 1);
  CHECK(without_rule > 50);
  CHECK(hmoe::placement::imbalance(placed, p) < 1.1);
}
