// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "routing/selections/coarse_rows.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <vector>

namespace routing = hmoe::routing;
using namespace coarse;
using support::error_of;

TEST_CASE("cost-aware top-p buys the most probability per cost, within the budget") {
  support::random_source random(5);
  std::size_t skipped = 0;
  for (int round = 0; round < 1000; ++round) {
    const auto row = coarse_row(random, 7, 0, 1);
    std::vector<double> costs(7);
    for (double& cost : costs)
      cost = static_cast<double>(random.size(0, 4));
    const double p = 0.25 * static_cast<double>(random.size(1, 4));
    const double budget = *std::min_element(costs.begin(), costs.end()) + static_cast<double>(random.size(0, 8));
    ids order(7);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const bool free_a = costs[a] == 0, free_b = costs[b] == 0;
      if (free_a != free_b)
        return free_a;
      const double value_a = free_a ? 0 : row[a] / costs[a], value_b = free_b ? 0 : row[b] / costs[b];
      return value_a != value_b ? value_a > value_b : row[a] != row[b] ? row[a] > row[b] : a < b;
    });
    ids expected;
    double sum = 0, spent = 0;
    for (const std::size_t e : order) {
      if (sum >= p)
        break;
      if (spent + costs[e] > budget) {
        ++skipped;
        continue;
      }
      expected.push_back(e);
      sum += row[e];
      spent += costs[e];
    }
    std::sort(expected.begin(), expected.end());
    const routing::cost_aware_top_p select(costs, p, budget);
    select.validate(7);
    const auto got = choose(select, row);
    CHECK(got == expected);
    CHECK(got.size() >= 1);
    CHECK(got.size() <= select.max_selected(7));
    CHECK(choose(select.view(), row) == expected);
  }
  CHECK(skipped > 100);
  static_assert(std::is_trivially_copyable_v<routing::cost_aware_top_p_view>);
}

TEST_CASE("cost-aware top-p with equal costs and no bound is top-p; a narrow expert goes first at equal probability") {
  support::random_source random(6);
  for (int round = 0; round < 200; ++round) {
    const auto row = coarse_row(random, 6, 0, 1);
    CHECK(choose(routing::cost_aware_top_p(std::vector<double>(6, 3.0), 0.75), row) ==
          choose(routing::top_p{0.75}, row));
  }
  CHECK(choose(routing::cost_aware_top_p({4, 1}, 0.3), std::vector<double>{0.5, 0.5}) == ids{1});
  CHECK(error_of([] { routing::cost_aware_top_p({4, 2}, 0.3, 1.5); }) ==
        "hmoe: cost_aware_top_p with a budget of 1.5: the cheapest expert costs 2");
  CHECK(error_of([] { routing::cost_aware_top_p({4, 2}, 0); }) ==
        "hmoe: cost_aware_top_p with p = 0: p must be in (0, 1]");
  CHECK(error_of([] { routing::cost_aware_top_p({4, -2}, 0.5); }) ==
        "hmoe: cost_aware_top_p: expert 1 costs -2: it must be finite and not below 0");
  CHECK(error_of([] { routing::cost_aware_top_p({4, 2}, 0.5).validate(3); }) ==
        "hmoe: cost_aware_top_p has 2 costs for 3 experts");
}
