// SPDX-License-Identifier: MIT
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/group_balance.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/intra_group_balance.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/small_memory.hpp>
#include <hmoe/losses/smooth_load.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>

#include "losses/routing_batch.hpp"
#include "support/allocation_count.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

namespace losses = hmoe::losses;

TEST_CASE("losses among up to a few hundred experts take nothing from the heap") {
  support::random_source random(241);
  for (const std::size_t experts : {4U, 256U}) {
    support::routing_batch batch(5, experts);
    batch.randomize(random);
    hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
    losses::load_accumulator load(experts);
    const hmoe::objective all{losses::adaptive_l1{},      losses::compute_cost{}, losses::global_load_balance{1, &load},
                              losses::group_balance{},    losses::importance{},   losses::intra_group_balance{},
                              losses::smooth_load{},      losses::load_balance{}, losses::sequence_balance{},
                              losses::zero_cost_balance{}};
    double total = 0;
    CHECK(support::allocations_in([&] {
            load.add(routed);
            total = all.evaluate(routed).total();
          }) == 0);
    CHECK(std::isfinite(total));
  }
}

TEST_CASE("more experts than fit on the stack") {
  support::random_source random(242);
  support::routing_batch batch(3, 5000);
  batch.randomize(random);
  const double all = batch.evaluate(losses::load_balance{});
  double expected = 0;
  for (std::size_t e = 0; e < 5000; ++e)
    expected += 5000 * batch.rate(e) * batch.mean_probability(e);
  CHECK(all == doctest::Approx(expected).epsilon(1e-12));
  CHECK(std::isfinite(batch.evaluate(losses::importance{})));
}

TEST_CASE("small memory gives zeros that live side by side") {
  losses::detail::small_memory memory;
  auto first = memory.zeros<double>(100);
  first.fill(1);
  const auto second = memory.zeros<hmoe::index_t>(7), large = memory.zeros<hmoe::index_t>(5000);
  CHECK(std::ranges::count(second, 0U) == 7);
  CHECK(std::ranges::count(large, 0U) == 5000);
  CHECK(std::ranges::count(first, 1.0) == 100);
}
