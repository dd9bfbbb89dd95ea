// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/weightings/sparsemixer.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t, hmoe::vector_view;
using numbers = std::vector<double>;
using router_type =
    routing::router<routing::linear<double, routing::unscored>, routing::sparsemixer, routing::sparsemixer>;

namespace {
constexpr std::size_t experts = 5, draws = 20000;
constexpr double epsilon = 0.3;
const numbers z{1.0, 0.5, 0.9, -2.0, 0.8}; // expert 3 is never a candidate, expert 1 is one at 2 epsilon >= 1/2

/// q over the candidates beside `without`, by the model's rule.
numbers candidates(std::size_t without) {
  double largest = -1e9, sum = 0;
  for (std::size_t e = 0; e < experts; ++e)
    if (e != without)
      largest = std::max(largest, z[e]);
  numbers q(experts);
  for (std::size_t e = 0; e < experts; ++e)
    if (e != without && (largest - z[e]) / std::max(std::abs(z[e]), largest) <= 2 * epsilon)
      sum += q[e] = std::exp(z[e]);
  for (double& value : q)
    value /= sum;
  return q;
}
bool is_best(const numbers& q, std::size_t e) { return q[e] == *std::max_element(q.begin(), q.end()); }

struct routed {
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
};
/// Many tokens with the logits z.
void route(routed& into, std::size_t tokens, std::optional<hmoe::noise_source> noise) {
  router_type router{experts, experts, {epsilon}, {epsilon}};
  hmoe::matrix<double> x(tokens, experts);
  for (std::size_t e = 0; e < experts; ++e)
    router.score().weight()(e, e) = 1;
  for (std::size_t t = 0; t < tokens; ++t)
    std::ranges::copy(z, x.row(t).begin());
  into.trace.resize(tokens, experts, 0, false);
  into.trace.set_inputs({.noise = noise});
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), into.trace, into.assigned);
}
} // namespace

TEST_CASE("without noise: the two largest logits, each with its probability among its candidates") {
  routed r;
  route(r, 1, {});
  REQUIRE(r.assigned.experts_of(0).size() == 2);
  CHECK(r.assigned.experts_of(0)[0] == 0);
  CHECK(r.assigned.experts_of(0)[1] == 2);
  CHECK(r.assigned.weights_of(0)[0] == doctest::Approx(candidates(9)[0]).epsilon(1e-14));
  CHECK(r.assigned.weights_of(0)[1] == doctest::Approx(candidates(0)[2]).epsilon(1e-14));
}

TEST_CASE("with noise: how often which pair is drawn, in which order, and with which weights") {
  routed r;
  route(r, draws, hmoe::noise_source{hmoe::seed{5}, 3});
  const numbers first = candidates(9);
  std::map<std::pair<std::size_t, std::size_t>, double> count; // (first, second)
  double not_best = 0, reduced = 0;
  for (std::size_t t = 0; t < draws; ++t) {
    const auto ids = r.assigned.experts_of(t);
    const auto w = r.assigned.weights_of(t);
    REQUIRE(ids.size() == 2);
    // The order that explains the weights: no two orders give the same ones.
    std::size_t orders = 0;
    for (const std::size_t i : {0U, 1U}) {
      const std::size_t a = ids[i], b = ids[1 - i];
      const numbers second = candidates(a);
      const std::array<double, 2> q{first[a], second[b]}, got{w[i], w[1 - i]};
      const std::array<bool, 2> best{is_best(first, a), is_best(second, b)};
      bool fits = true;
      double low = 0;
      for (std::size_t c = 0; c < 2; ++c) {
        const bool whole = std::abs(got[c] - q[c]) < 1e-12, third = std::abs(got[c] - 0.3333 * q[c]) < 1e-12;
        fits = fits && q[c] > 0 && (whole || (third && !best[c]));
        low += third ? 1 : 0;
      }
      if (!fits)
        continue;
      ++orders;
      count[{a, b}] += 1;
      reduced += low;
      not_best += (best[0] ? 0 : 1) + (best[1] ? 0 : 1);
    }
    REQUIRE(orders == 1);
  }
  double total = 0;
  for (std::size_t a = 0; a < experts; ++a)
    for (std::size_t b = 0; b < experts; ++b) {
      const double p = a == b ? 0 : first[a] * candidates(a)[b];
      CHECK(std::abs(count[{a, b}] - draws * p) <= 5 * std::sqrt(draws * p * (1 - p)));
      total += p;
    }
  CHECK(total == doctest::Approx(1));
  CHECK(std::abs(reduced / not_best - 0.75) < 0.01);

  routed again, other;
  route(again, draws, hmoe::noise_source{hmoe::seed{5}, 3});
  CHECK(std::ranges::equal(again.assigned.weights(), r.assigned.weights()));
  route(other, draws, hmoe::noise_source{hmoe::seed{5}, 4});
  CHECK_FALSE(std::ranges::equal(other.assigned.weights(), r.assigned.weights()));
}

TEST_CASE("the gradient: dw q (1{chosen} - q) over the candidates, the weight's factor left out") {
  const routing::sparsemixer mixer{epsilon};
  routed r;
  const std::optional<hmoe::noise_source> noise = hmoe::noise_source{hmoe::seed{5}, 3};
  route(r, 40, noise);
  const numbers dw{0.7, -1.1}, none(experts);
  for (std::size_t t = 0; t < 40; ++t) {
    const auto ids = std::as_const(r.assigned).experts_of(t);
    const auto w = std::as_const(r.assigned).weights_of(t);
    numbers found(experts, 0.5), d_p(experts);
    mixer.backward({t, noise}, vector_view<const double>(z), vector_view<const double>(none), ids, w,
                   vector_view<const double>(dw), vector_view<double>(found), vector_view<double>(d_p));
    double closest = 1; // of the two orders; which one it was, the test above finds
    for (const std::size_t i : {0U, 1U}) {
      const numbers q = candidates(9), second = candidates(ids[i]);
      double error = 0;
      for (std::size_t e = 0; e < experts; ++e) {
        const double expected = 0.5 + dw[i] * q[ids[i]] * ((e == ids[i] ? 1 : 0) - q[e]) +
                                dw[1 - i] * second[ids[1 - i]] * ((e == ids[1 - i] ? 1 : 0) - second[e]);
        error = std::max(error, std::abs(found[e] - expected));
      }
      closest = std::min(closest, error);
    }
    CHECK(closest < 1e-13);
  }
}

TEST_CASE("epsilon must be given; one expert cannot be chosen twice; experts out of service") {
  CHECK(
      support::error_of([] { router_type{4, 4, {}, {0.1}}; }) ==
      "hmoe: sparsemixer with epsilon = 0: give the model's router_jitter_noise, finite and above 0, as in {.epsilon = "
      "0.01}");
  CHECK(support::error_of([] { routing::sparsemixer{0.1}.validate(1); }) == "hmoe: sparsemixer chooses 2 experts of 1");
  CHECK(routing::presets::phimoe<float>{4, 4}.weighting_policy().epsilon == 0.01);
  router_type router{2, 2, {epsilon}, {epsilon}};
  router.set_on_non_finite(routing::non_finite::exclude);
  router.score().weight()(1, 0) = -std::numeric_limits<double>::infinity();
  hmoe::matrix<double> x(1, 2);
  x(0, 0) = 1;
  routed r;
  r.trace.resize(1, 2, 0, false);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), r.trace, r.assigned);
  CHECK(r.assigned.experts_of(0).size() == 1);
  CHECK(r.assigned.weights()[0] == 1);
}
