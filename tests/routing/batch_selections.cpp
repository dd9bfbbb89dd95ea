// SPDX-License-Identifier: MIT
// Selections over a whole batch: hash, expert choice, Sinkhorn, balanced assignment.
#include <hmoe/routing/batch_selections/balanced.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/weightings/equal.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory_resource>
#include <numeric>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::matrix;
using id_list = std::vector<index_t>;
using support::error_of;

namespace {
/// Each token's experts.
template <class Selection>
std::vector<id_list> choose(const Selection& select, const hmoe::router_trace<double>& trace) {
  const std::size_t n = trace.expert_count();
  std::size_t most = n;
  if constexpr (requires { select.max_selected(n); })
    most = select.max_selected(n);
  std::vector<index_t> memory(trace.tokens() * most), counts(trace.tokens(), 77);
  select(trace, hmoe::matrix_view<index_t>(memory.data(), trace.tokens(), most), hmoe::vector_view<index_t>(counts),
         std::pmr::get_default_resource());
  std::vector<id_list> result;
  for (std::size_t t = 0; t < trace.tokens(); ++t) {
    const auto begin = memory.begin() + static_cast<std::ptrdiff_t>(t * most);
    result.emplace_back(begin, begin + counts[t]);
    std::sort(result.back().begin(), result.back().end());
  }
  return result;
}
hmoe::router_trace<double> random_trace(std::uint64_t seed, std::size_t tokens, std::size_t experts, bool coarse) {
  support::random_source random(seed);
  hmoe::router_trace<double> trace;
  trace.resize(tokens, experts, 0, false);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (double& z : trace.logits().row(t))
      z = coarse ? std::round(random.real(-2, 2)) : random.real(-2, 2);
    routing::softmax::forward(std::as_const(trace).logits().row(t), trace.probabilities().row(t));
  }
  return trace;
}
std::vector<std::size_t> loads_of(const std::vector<id_list>& chosen, std::size_t experts) {
  std::vector<std::size_t> loads(experts);
  for (const id_list& row : chosen)
    for (const index_t e : row)
      ++loads[e];
  return loads;
}
} // namespace

TEST_CASE("hash: the id alone decides, choices are different and uniform") {
  std::vector<index_t> words(6000);
  for (std::size_t t = 0; t < words.size(); ++t)
    words[t] = static_cast<index_t>(t % 3000);
  hmoe::router_trace<double> trace;
  trace.resize(words.size(), 5, 0, false);
  trace.set_inputs({.token_ids = words});
  const auto one = choose(routing::hash{1, hmoe::seed{4}}, trace),
             three = choose(routing::hash{3, hmoe::seed{4}}, trace),
             other = choose(routing::hash{3, hmoe::seed{5}}, trace);
  CHECK(three != other);
  for (std::size_t t = 0; t < 3000; ++t) {
    REQUIRE(three[t] == three[t + 3000]);
    REQUIRE(three[t].size() == 3);
    REQUIRE(std::adjacent_find(three[t].begin(), three[t].end()) == three[t].end());
    REQUIRE(three[t].back() < 5);
    // The first draw is the same one for every k.
    REQUIRE(std::find(three[t].begin(), three[t].end(), one[t][0]) != three[t].end());
  }
  for (const std::size_t load : loads_of(three, 5))
    CHECK(static_cast<double>(load) == doctest::Approx(3600).epsilon(0.06));
  for (const id_list& row : choose(routing::hash{5}, trace))
    REQUIRE(row == id_list{0, 1, 2, 3, 4});
  trace.set_inputs({.token_ids = hmoe::vector_view<const index_t>(words.data(), 10)});
  CHECK(error_of([&] { choose(routing::hash{1}, trace); }) ==
        "hmoe: hash selection needs the id of each token: routing_inputs::token_ids has 10 for 6000 tokens");
  CHECK(error_of([] { routing::hash{6}.validate(5); }) == "hmoe: hash with k = 6 for 5 experts: k must be 1 to 5");
}

TEST_CASE("a hash table sends each id where it says") {
  const routing::hash_table table({0, 2, 1, 0}, 2); // two ids
  table.validate(3);
  const std::vector<index_t> words{1, 0, 1};
  hmoe::router_trace<double> trace;
  trace.resize(3, 3, 0, false);
  trace.set_inputs({.token_ids = words});
  CHECK(choose(table, trace) == std::vector<id_list>{{0, 1}, {0, 2}, {0, 1}});
  CHECK(error_of([&] { table.validate(2); }) == "hmoe: hash_table sends id 0 to expert 2 of 2");
  CHECK(error_of([] { routing::hash_table({0, 2, 1, 1}, 2).validate(3); }) ==
        "hmoe: hash_table sends id 1 to expert 1 twice");
  CHECK(error_of([] { routing::hash_table({0, 2, 1}, 2); }) ==
        "hmoe: a hash table of 3 values is not made of rows of k = 2");
  const std::vector<index_t> beyond{2, 0, 1};
  trace.set_inputs({.token_ids = beyond});
  CHECK(error_of([&] { choose(table, trace); }) == "hmoe: token 0 has vocabulary id 2, the hash table ends at 2");
}

TEST_CASE("the layer of the Hash Layers paper: weight 1, no gradient to a router") {
  const std::vector<index_t> words{3, 1, 4, 1, 5, 9, 2};
  routing::router<routing::no_score<double>, routing::hash, routing::equal> router(4, 3, routing::hash{1});
  const auto found = support::check_router_gradients(router, {.token_ids = words});
  CHECK(found.worst < 1e-6);
  CHECK(found.routed == 7);
}

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

TEST_CASE("Sinkhorn: the top of the transport plan, with columns as balanced as asked") {
  for (const bool coarse : {false, true}) {
    const std::size_t tokens = 40, experts = 5;
    auto trace = random_trace(coarse ? 8 : 9, tokens, experts, coarse);
    for (std::size_t t = 0; t < tokens; ++t)
      trace.logits()(t, 1) += 3; // everyone's favourite
    // Independently, without logarithms: Π_te = a_t exp(logit) b_e.
    std::vector<double> a(tokens, 1.0), b(experts, 1.0);
    for (int round = 0; round < 2000; ++round) {
      for (std::size_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (std::size_t e = 0; e < experts; ++e)
          sum += std::exp(trace.logits()(t, e)) * b[e];
        a[t] = 1 / sum;
      }
      for (std::size_t e = 0; e < experts; ++e) {
        double sum = 0;
        for (std::size_t t = 0; t < tokens; ++t)
          sum += std::exp(trace.logits()(t, e)) * a[t];
        b[e] = static_cast<double>(tokens) / static_cast<double>(experts) / sum;
      }
    }
    const auto chosen = choose(routing::sinkhorn{.k = 2, .iterations = 2000, .tolerance = 0}, trace);
    for (std::size_t t = 0; t < tokens; ++t) {
      std::vector<std::pair<double, index_t>> plan;
      for (index_t e = 0; e < experts; ++e)
        plan.emplace_back(-std::exp(trace.logits()(t, e)) * b[e], e);
      std::sort(plan.begin(), plan.end());
      if (plan[2].first - plan[1].first < 1e-9)
        continue; // no telling
      id_list expected{plan[0].second, plan[1].second};
      std::sort(expected.begin(), expected.end());
      CHECK(chosen[t] == expected);
    }
    if (!coarse)
      for (const std::size_t load : loads_of(chosen, experts)) {
        CHECK(load > 8); // 16 would be balance; without the transport, expert 1 has 40
        CHECK(load < 24);
      }
  }
  CHECK(choose(routing::sinkhorn{}, random_trace(1, 0, 3, false)).empty());
  CHECK(error_of([] { routing::sinkhorn{.k = 4}.validate(3); }) ==
        "hmoe: sinkhorn with k = 4 for 3 experts: k must be 1 to 3");
  CHECK(error_of([] { routing::sinkhorn{.iterations = 0}.validate(3); }) ==
        "hmoe: sinkhorn with 0 iterations: at least 1 is needed");
}

namespace {
/// Each token's best expert by Sinkhorn's iteration with plain factors, which ends when no column of the transport is
/// off by more than `tolerance` of T / N.
std::vector<id_list> transported(const hmoe::router_trace<double>& trace, double tolerance) {
  const std::size_t tokens = trace.tokens(), experts = trace.expert_count();
  const double wanted = static_cast<double>(tokens) / static_cast<double>(experts);
  std::vector<double> a(tokens), b(experts, 1.0);
  for (double worst = 1e300; worst > tolerance;) {
    for (std::size_t t = 0; t < tokens; ++t) {
      double row = 0;
      for (std::size_t e = 0; e < experts; ++e)
        row += std::exp(trace.logits()(t, e)) * b[e];
      a[t] = 1 / row;
    }
    worst = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      double column = 0;
      for (std::size_t t = 0; t < tokens; ++t)
        column += std::exp(trace.logits()(t, e)) * a[t];
      worst = std::max(worst, std::abs(column * b[e] / wanted - 1));
      b[e] = wanted / column;
    }
  }
  std::vector<id_list> result(tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    index_t best = 0;
    for (index_t e = 1; e < experts; ++e)
      if (std::exp(trace.logits()(t, e)) * b[e] > std::exp(trace.logits()(t, best)) * b[best])
        best = e;
    result[t] = {best};
  }
  return result;
}
} // namespace

TEST_CASE("sinkhorn goes on until every column is within its tolerance, and no further") {
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    auto trace = random_trace(900 + seed, 2000, 6, false);
    for (std::size_t t = 0; t < trace.tokens(); ++t) { // decided tokens make it slow, and an expert is much in demand
      for (double& z : trace.logits().row(t))
        z *= 12;
      trace.logits()(t, seed) += 6;
    }
    std::vector<std::vector<id_list>> choices;
    for (const double tolerance : {0.3, 3e-2, 1e-3}) {
      choices.push_back(transported(trace, tolerance));
      CHECK(choose(routing::sinkhorn{.iterations = 1000, .tolerance = tolerance}, trace) == choices.back());
    }
    for (std::size_t i = 1; i < choices.size(); ++i)
      CHECK(choices[i] != choices[i - 1]); // or this test would show nothing
    CHECK(choose(routing::sinkhorn{}, trace) == choices[2]);
  }
}

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

TEST_CASE("batch-wide selections take no more of the workspace than they say") {
  const auto check = [](auto select) {
    using router = routing::router<routing::linear<double>, decltype(select), routing::sigmoid_of_logit>;
    hmoe::moe_layer layer{
        hmoe::expert_set{hmoe::experts::glu_bank<double, hmoe::experts::silu>(4, std::vector<std::size_t>{1, 2, 3})},
        router(4, 3, select)};
    layer.initialize(hmoe::seed{1});
    hmoe::workspace memory;
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
    support::random_source random(1);
    const auto x = support::random_matrix<double>(random, 65, 4);
    matrix<double> y(65, 4);
    layer.forward(ctx, x, y);
    CHECK(memory.peak() <= layer.workspace_bytes(ctx, 65));
    CHECK_ROUTER_GRADIENTS(router(4, 3, select));
  };
  check(routing::expert_choice{1.5});
  check(routing::sinkhorn{2});
  check(routing::balanced{});
}
