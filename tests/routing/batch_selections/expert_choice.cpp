// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "routing/batch_selections/check_workspace.hpp"
#include "routing/batch_selections/traces.hpp"
#include "support/error_of.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace routing = hmoe::routing;
using namespace batches;
using support::error_of;

TEST_CASE("expert choice: each expert takes its best tokens") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const std::size_t tokens = seed % 13, experts = 1 + seed % 5;
    const double factor = std::min<double>(static_cast<double>(experts), 0.5 + static_cast<double>(seed % 4));
    const auto trace = random_trace(seed, tokens, experts, seed % 2 == 0);
    const auto capacity = std::min(
        tokens, std::max<std::size_t>(1, static_cast<std::size_t>(std::floor(factor * static_cast<double>(tokens) /
                                                                             static_cast<double>(experts)))));
    std::vector<id_list> expected(tokens);
    for (std::size_t e = 0; e < experts; ++e) {
      std::vector<std::size_t> order(tokens);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        const double p_a = trace.probabilities()(a, e), p_b = trace.probabilities()(b, e);
        return p_a != p_b ? p_a > p_b : a < b;
      });
      for (std::size_t i = 0; i < capacity; ++i)
        expected[order[i]].push_back(static_cast<index_t>(e));
    }
    const routing::expert_choice select{factor};
    select.validate(experts);
    CHECK(choose(select, trace) == expected);
  }
  CHECK(error_of([] { routing::expert_choice{5}.validate(4); }) ==
        "hmoe: expert_choice with factor = 5 for 4 experts: it must be above 0, and at most 4");
  CHECK_ROUTER_GRADIENTS(routing::router<routing::linear<double>, routing::expert_choice, routing::raw>(5, 4, {2.0}));
}

TEST_CASE("expert choice takes no more of the workspace than it says") { check_workspace(routing::expert_choice{1.5}); }
