// SPDX-License-Identifier: MIT
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/rebalance.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/shard_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

namespace {
using moved_layer = support::shard_layer<support::shard_rank>;
using hmoe::parallel::rebalance;
constexpr std::size_t moved_ranks = 3;

/// Gives the layer another placement, whether each rank has all experts or its own, and makes what depends on it anew.
void move_to(const support::shard_rank& self, moved_layer& of, const hmoe::expert_placement& to, bool own_only) {
  if (!own_only) {
    rebalance(of.layer, *of.optimizer, to);
    of.placed = to;
    return;
  }
  rebalance(of.layer, *of.optimizer, to, [&](const hmoe::expert_placement& placed) {
    return hmoe::expert_set{support::shard_bank(support::shard_d,
                                                hmoe::placement::own_widths(placed, self.rank(), support::shard_widths),
                                                hmoe::experts::biases::all)};
  });
  of.placed = to;
  of.gradients = of.layer.make_gradients();
  of.list.clear();
  of.layer.append_parameters(of.gradients, of.list, "l.");
}
support::shard_values of_all(const std::vector<support::shard_values>& ranks) {
  support::shard_values all;
  for (const support::shard_values& own : ranks)
    for (const auto& [name, values] : own)
      if (const auto [at, added] = all.try_emplace(name, values); !added)
        CHECK(at->second == values);
  return all;
}
} // namespace

TEST_CASE("training goes on after experts have moved with the bits of training without it") {
  // No replicas: their gradients are sums of parts, whose order depends on the placement.
  const std::size_t n = support::shard_widths.size();
  const auto first = hmoe::placement::contiguous(n, moved_ranks), second = hmoe::placement::round_robin(n, moved_ranks);
  std::vector<support::shard_values> expected(moved_ranks);
  std::vector<std::vector<double>> y(moved_ranks);
  hmoe::communicators::threads(moved_ranks).run([&](const support::shard_rank& self) {
    moved_layer of(self, first, false);
    of.layer.initialize(hmoe::seed{6});
    y[self.rank()] = of.train(self, 5);
    expected[self.rank()] = of.values(self.rank());
  });
  const auto all = of_all(expected);
  for (const bool own_only : {false, true}) {
    CAPTURE(own_only);
    std::vector<support::shard_values> got(moved_ranks);
    std::vector<std::vector<double>> got_y(moved_ranks);
    hmoe::communicators::threads(moved_ranks).run([&](const support::shard_rank& self) {
      moved_layer of(self, first, own_only);
      of.layer.initialize(hmoe::seed{6});
      of.train(self, 2);
      move_to(self, of, second, own_only);
      of.train(self, 1);
      move_to(self, of, first, own_only); // weights of the second placement that stayed behind are old by now
      got_y[self.rank()] = of.train(self, 2);
      got[self.rank()] = of.values(self.rank());
    });
    CHECK(of_all(got) == all);
    CHECK(got_y == y);
  }
}

TEST_CASE("replicas that come and go have the same weights and state as the others") {
  const auto with = support::shard_placement(moved_ranks);
  const auto without = hmoe::placement::round_robin(support::shard_widths.size(), moved_ranks);
  for (const bool own_only : {false, true}) {
    CAPTURE(own_only);
    std::vector<support::shard_values> before(moved_ranks), after(moved_ranks), later(moved_ranks);
    hmoe::communicators::threads(moved_ranks).run([&](const support::shard_rank& self) {
      moved_layer of(self, without, own_only);
      of.layer.initialize(hmoe::seed{7});
      of.train(self, 2);
      before[self.rank()] = of.values(self.rank());
      move_to(self, of, with, own_only);
      after[self.rank()] = of.values(self.rank());
      of.train(self, 2);
      later[self.rank()] = of.values(self.rank());
      move_to(self, of, without, own_only);
      hmoe::require(of.layer.dispatch_strategy().placed() == without, "it has another placement");
    });
    const auto all = of_all(before);
    CHECK(all.size() == 3 * (5 * 6 + 1));
    CHECK(of_all(after) == all);
    static_cast<void>(of_all(later));
  }
}

TEST_CASE("what rebalance refuses, on every rank") {
  std::vector<std::string> texts(2);
  const auto run = [&](const auto& f) {
    hmoe::communicators::threads(2).run([&](const support::shard_rank& self) {
      moved_layer of(self, hmoe::placement::contiguous(5, 2), false);
      texts[self.rank()] = support::error_of([&] { f(self, of); });
    });
  };
  run([](const support::shard_rank&, moved_layer& of) {
    rebalance(of.layer, *of.optimizer, hmoe::placement::contiguous(4, 2));
  });
  CHECK(texts[0] == "hmoe: rebalance: a placement of 4 experts for a layer of 5");
  CHECK(texts[1] == texts[0]);
  run([](const support::shard_rank& self, moved_layer& of) {
    rebalance(of.layer, *of.optimizer, self.rank() == 0 ? hmoe::placement::round_robin(5, 2) : of.placed);
  });
  CHECK(texts[0].find("different placements") != std::string::npos);
  run([](const support::shard_rank& self, moved_layer& of) {
    rebalance(of.layer, *of.optimizer, hmoe::placement::round_robin(5, 2), [&](const hmoe::expert_placement&) {
      hmoe::require(self.rank() == 0, "no memory");
      return of.layer.experts();
    });
  });
  CHECK(texts[0] == "hmoe: rebalance: rank 1 has failed: no memory");
  CHECK(texts[1] == "hmoe: no memory");
}
