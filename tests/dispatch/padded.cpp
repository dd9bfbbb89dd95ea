// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/sorted.hpp>

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
  CHECK(padded{capacity::busiest{}}.slots(10, 20, 4) == 40);
  CHECK(padded{infinite}.slots(10, 20, 4) == 40);
  CHECK(padded{capacity::by_factor{1}}.slots(1000, 2000, 4) == 2000 + 8); // at most one row of rounding each, or 1
}
