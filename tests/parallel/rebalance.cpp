// SPDX-License-Identifier: MIT
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/rebalance.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/shard_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <exception>
#include <new>
#include <string>
#include <vector>

namespace {
using moved_layer = support::shard_layer<support::shard_rank>;
using hmoe::parallel::rebalance;
constexpr std::size_t moved_ranks = 3;

hmoe::expert_set<support::shard_bank> moved_experts(const hmoe::expert_placement& placed, std::size_t rank,
                                                    hmoe::experts::biases bias = hmoe::experts::biases::all) {
  return hmoe::expert_set{
      support::shard_bank(support::shard_d, hmoe::placement::own_widths(placed, rank, support::shard_widths), bias)};
}
/// Memory ends when the states of `left` tensors have grown.
struct tight_optimizer {
  hmoe::training::adamw<double>& inner;
  std::size_t left;

  template <class Visitor> void visit_state(std::size_t tensor, Visitor&& visit) { inner.visit_state(tensor, visit); }
  void resize_state(std::size_t tensor, std::size_t values) {
    const bool grows = values > inner.first_moment(tensor).size();
    inner.resize_state(tensor, values);
    if (grows && left-- == 0) // some of the states have grown by then
      throw std::bad_alloc();
  }
};

/// Gives the layer another placement, whether each rank has all experts or its own, and makes what depends on it anew.
void move_to(const support::shard_rank& self, moved_layer& of, const hmoe::expert_placement& to, bool own_only) {
  if (!own_only) {
    rebalance(of.layer, *of.optimizer, to);
    of.placed = to;
    return;
  }
  rebalance(of.layer, *of.optimizer, to,
            [&](const hmoe::expert_placement& placed) { return moved_experts(placed, self.rank()); });
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

TEST_CASE("where memory ends on one rank nothing has moved, and training goes on") {
  const auto from = hmoe::placement::contiguous(support::shard_widths.size(), moved_ranks);
  const auto to = hmoe::placement::round_robin(support::shard_widths.size(), moved_ranks);
  hmoe::communicators::threads(moved_ranks).run([&](const support::shard_rank& self) {
    moved_layer of(self, from, true), other(self, from, true);
    for (moved_layer* layer : {&of, &other}) {
      layer->layer.initialize(hmoe::seed{6});
      layer->train(self, 2);
    }
    const auto before = of.values(self.rank());
    for (std::size_t left = 0; left < 6; ++left) { // one expert with 6 tensors comes in
      tight_optimizer tight{*of.optimizer, self.rank() == 1 ? left : 99};
      const std::exception_ptr error = hmoe::exception_of([&] {
        rebalance(of.layer, tight, to,
                  [&](const hmoe::expert_placement& placed) { return moved_experts(placed, self.rank()); });
      });
      hmoe::require(error != nullptr, "it has moved with memory for ", left, " tensors");
      const std::string text = hmoe::communicators::text_of(error);
      hmoe::require(
          text == (self.rank() == 1 ? "std::bad_alloc" : "hmoe: rebalance: rank 1 has failed: std::bad_alloc"), text);
      hmoe::require(of.values(self.rank()) == before, "rank ", self.rank(), " has lost something at ", left);
    }
    hmoe::require(of.train(self, 2) == other.train(self, 2) && of.values(self.rank()) == other.values(self.rank()),
                  "training goes on otherwise");
  });
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
  // Experts that are not those of the layer, here or elsewhere.
  run([](const support::shard_rank& self, moved_layer& of) {
    rebalance(of.layer, *of.optimizer, hmoe::placement::round_robin(5, 2), [&](const hmoe::expert_placement& placed) {
      std::vector<std::size_t> widths = support::shard_widths;
      widths[self.rank() == 0 ? 1 : 3] = placed.has(self.rank(), 1) ? 16 : 7; // of expert 1, which is elsewhere
      return hmoe::expert_set{support::shard_bank(support::shard_d, widths, hmoe::experts::biases::all)};
    });
  });
  CHECK(texts[0] == "hmoe: rebalance: expert 1 was made with width 7, it has 12");
  CHECK(texts[1] == "hmoe: rebalance: rank 0 has failed: rebalance: expert 1 was made with width 7, it has 12");
  run([](const support::shard_rank& self, moved_layer& of) {
    rebalance(of.layer, *of.optimizer, hmoe::placement::round_robin(5, 2), [&](const hmoe::expert_placement& placed) {
      return moved_experts(placed, self.rank(),
                           self.rank() == 1 ? hmoe::experts::biases::none : hmoe::experts::biases::all);
    });
  });
  CHECK(texts[0].starts_with("hmoe: rebalance: rank 1 has failed: rebalance: the layer has "));
  CHECK(texts[1].find("were made") != std::string::npos);
}
