// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/no_shared.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;

TEST_CASE("without shared experts a router gives what one with shared experts gives to those that compete") {
  support::random_source random(42);
  routing::router<routing::linear<double>, routing::top_k<>, routing::renormalized> alone(4, 3, 2);
  routing::router<routing::linear<double>, routing::top_k<>, routing::renormalized, routing::always_on> with(
      4, 3, 2, {}, routing::always_on{1});
  support::fill(random, alone.score().weight());
  with.score() = alone.score();
  CHECK(alone.size() == alone.routed());
  CHECK(alone.max_selected() == 2);

  const auto x = support::random_matrix<double>(random, 9, 4);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const auto route = [&](const auto& router) {
    hmoe::router_trace<double> trace;
    trace.resize(9, router.routed(), router.saved_per_token(), false);
    hmoe::assignment<double> assigned;
    const hmoe::workspace::scope scope(ctx.workspace());
    router.forward(ctx, x.view(), trace, assigned);
    return assigned;
  };
  const auto few = route(alone), many = route(with);
  CHECK(few.size() == 18);
  for (std::size_t t = 0; t < 9; ++t)
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(few.experts_of(t)[i] == many.experts_of(t)[i]);
      CHECK(few.weights_of(t)[i] == many.weights_of(t)[i]);
    }
}

TEST_CASE("no_shared writes nothing and has nothing to learn") {
  std::vector<double> x{1, 2}, weights{7};
  routing::no_shared none;
  none.forward(hmoe::vector_view<const double>(x), hmoe::vector_view<double>(weights));
  CHECK(weights[0] == 7);
  std::size_t visited = 0;
  none.visit_parameters([&](const auto&...) { ++visited; });
  CHECK(visited == 0);
}
