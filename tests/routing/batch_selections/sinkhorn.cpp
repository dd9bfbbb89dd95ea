// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/sinkhorn.hpp>

#include "routing/batch_selections/check_workspace.hpp"
#include "routing/batch_selections/traces.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using namespace batches;
using support::error_of;

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

TEST_CASE("Sinkhorn takes no more of the workspace than it says") { check_workspace(routing::sinkhorn{2}); }

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
