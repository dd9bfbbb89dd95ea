// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/identity.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace capacity = hmoe::capacity;
using hmoe::dispatch::padded;
using hmoe::dispatch::sorted;

namespace {

const capacity::by_factor infinite{std::numeric_limits<double>::infinity()};

} // namespace

TEST_CASE_TEMPLATE("with room for all, padded and sorted have the bits of dense", T, float, double) {
  support::check_strategy<T>(sorted{infinite});
  support::check_strategy<T>(sorted{infinite, capacity::keep_heaviest{}});
  support::check_strategy<T>(padded{infinite});
  support::check_strategy<T>(padded{capacity::busiest{}});
}

TEST_CASE("every expert runs exactly its capacity, and padding is counted") {
  const std::size_t tokens = 300;
  const auto layer =
      support::make_layer<float>(padded{capacity::by_factor{0.9}}, hmoe::routing::top_k_router<float>(10, 6, 2));
  support::random_source random(41);
  const auto x = support::random_matrix<float>(random, tokens, 10);
  hmoe::matrix<float> y(tokens, 10);
  auto tape = layer.make_tape(tokens);
  layer.forward(hmoe::context{hmoe::backends::reference{}}, x, y, tape);
  const hmoe::plan& plan = tape.plan();
  for (std::size_t e = 0; e < 6; ++e)
    CHECK(plan.rows_of(e) == 90); // 0.9 · 600 / 6
  CHECK(plan.size() == 540);
  CHECK(plan.dropped() > 0);
  CHECK(plan.size() - plan.padding() + plan.dropped() == 600);
  CHECK(tape.expert_output().rows() == 540);
}

TEST_CASE("slots announces the most rows") {
  const hmoe::expert_set four{hmoe::experts::identity_bank<float>(3, 4)};
  const auto slots = [&](const auto& strategy, std::size_t tokens, std::size_t entries, std::size_t routed = 4) {
    return strategy.slots(four, hmoe::batch_limits{tokens, entries, routed});
  };
  CHECK(slots(padded{capacity::busiest{}}, 10, 20) == 40);
  CHECK(slots(padded{infinite}, 10, 20) == 40);
  CHECK(slots(padded{capacity::by_factor{1}}, 1000, 2000) == 2000);
  CHECK(slots(padded{capacity::by_factor{1.5}}, 1000, 2001) == 4 * 751); // 750.375 rounded up
  CHECK(slots(padded{capacity::by_factor{1}}, 1000, 3000, 3) == 3001);   // three with 667 rows, and a shared one
  CHECK(slots(padded{capacity::fixed{7}}, 1000, 3000) == 28);
  CHECK(slots(padded{capacity::fixed{7}}, 5, 10) == 20);
}
