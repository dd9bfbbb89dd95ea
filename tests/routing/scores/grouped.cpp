// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/selections/two_level.hpp>

#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using routing::linear;

namespace {
constexpr std::size_t d = 5, experts = 6;
const std::vector<std::size_t> sizes{1, 3, 2};
const std::size_t group_of[experts] = {0, 1, 1, 1, 2, 2};

using score = routing::grouped<linear<double>>;
using mohge = routing::router<score, routing::two_level>;
mohge make_router(std::size_t kept, std::size_t k) {
  mohge router(score(linear<double>(d, experts), sizes), routing::two_level(sizes, kept, k));
  support::random_source random(1);
  router.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view, 2); });
  return router;
}
} // namespace

TEST_CASE("P(e) = P(group) P(e within the group), and two_level chooses groups by the former") {
  const mohge router = make_router(2, 1);
  support::random_source random(2);
  const std::size_t tokens = 50;
  const auto x = support::random_matrix<double>(random, tokens, d);
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(tokens, experts, router.saved_per_token(), false);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, x.view(), trace, assigned);
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto product = [&](auto weight, std::size_t row) {
      double sum = 0;
      for (std::size_t c = 0; c < d; ++c)
        sum += weight(row, c) * x(t, c);
      return std::exp(sum);
    };
    double group[3], all_groups = 0, within[3] = {};
    for (std::size_t g = 0; g < 3; ++g)
      all_groups += group[g] = product(router.score().group_weight(), g);
    for (std::size_t e = 0; e < experts; ++e)
      within[group_of[e]] += product(router.score().inner().weight(), e);
    double p[experts];
    for (std::size_t e = 0; e < experts; ++e) {
      const std::size_t g = group_of[e];
      p[e] = group[g] / all_groups * product(router.score().inner().weight(), e) / within[g];
      CHECK(trace.probabilities()(t, e) == doctest::Approx(p[e]).epsilon(1e-12));
    }
    const std::size_t worst = static_cast<std::size_t>(std::min_element(group, group + 3) - group);
    const auto ids = assigned.experts_of(t);
    const auto weights = assigned.weights_of(t);
    REQUIRE(ids.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(group_of[ids[i]] != worst);
      CHECK(weights[i] == doctest::Approx(p[ids[i]] / (p[ids[0]] + p[ids[1]])));
      for (std::size_t e = 0; e < experts; ++e)
        CHECK((group_of[e] != group_of[ids[i]] || p[e] <= p[ids[i]]));
    }
  }
}

TEST_CASE("grouped has the gradients of the whole layer right, also around noise") {
  CHECK_ROUTER_GRADIENTS(make_router(2, 2));
  using noisy = routing::grouped<routing::noisy_linear<double>>;
  CHECK_ROUTER_GRADIENTS(
      routing::router(noisy(routing::noisy_linear<double>(d, experts), sizes), routing::two_level(sizes, 2, 1)),
      {.noise = hmoe::noise_source{hmoe::seed{17}, 3}});
}

TEST_CASE("large logits do not overflow, and groups that do not fit are refused") {
  mohge router = make_router(1, 1);
  router.visit_parameters([](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
    for (std::size_t i = 0; i < view.size(); ++i)
      view.data()[i] *= 1e5;
  });
  support::random_source random(3);
  const auto x = support::random_matrix<double>(random, 4, d);
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(4, experts, router.saved_per_token(), false);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  CHECK_NOTHROW(router.forward(ctx, x.view(), trace, assigned));
  CHECK_THROWS_WITH_AS(score(linear<double>(d, experts), {1, 2}),
                       "hmoe: grouped: the groups hold 3 experts, there are 6", hmoe::error);
  CHECK_THROWS_WITH_AS(score(linear<double>(d, experts), {4, 0, 2}), "hmoe: grouped: group 1 is empty", hmoe::error);
}
