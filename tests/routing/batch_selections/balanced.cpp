// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/balanced.hpp>

#include "routing/batch_selections/check_workspace.hpp"
#include "routing/batch_selections/traces.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using namespace batches;

namespace {
/// The largest sum of logits over all assignments with the given loads, by trying all.
double best_sum(const hmoe::router_trace<double>& trace, std::vector<std::size_t> room, std::size_t t = 0) {
  if (t == trace.tokens())
    return 0;
  double best = -1e300;
  for (std::size_t e = 0; e < room.size(); ++e)
    if (room[e] > 0) {
      --room[e];
      best = std::max(best, trace.logits()(t, e) + best_sum(trace, room, t + 1));
      ++room[e];
    }
  return best;
}
} // namespace

TEST_CASE("balanced assignment: equal loads and the largest sum there is") {
  for (std::uint64_t seed = 0; seed < 80; ++seed) {
    const std::size_t tokens = seed % 9, experts = 1 + seed % 4;
    const auto trace = random_trace(seed, tokens, experts, seed % 3 == 0);
    std::vector<std::size_t> room(experts, tokens / experts);
    for (std::size_t e = 0; e < tokens % experts; ++e)
      ++room[e];
    const auto chosen = choose(routing::balanced{}, trace);
    CHECK(loads_of(chosen, experts) == room);
    double sum = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      REQUIRE(chosen[t].size() == 1);
      sum += trace.logits()(t, chosen[t][0]);
    }
    CHECK(sum == doctest::Approx(best_sum(trace, room)));
  }
}

TEST_CASE("balanced assignment of a large batch ends, with ties and with outliers") {
  for (const bool coarse : {false, true}) {
    auto trace = random_trace(5, 700, 12, coarse);
    trace.logits()(3, 4) = 1e6;
    for (const std::size_t load : loads_of(choose(routing::balanced{}, trace), 12)) {
      CHECK(load >= 58);
      CHECK(load <= 59);
    }
  }
}

TEST_CASE("balanced assignment takes no more of the workspace than it says") { check_workspace(routing::balanced{}); }
