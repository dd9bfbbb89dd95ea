// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/shared/always_on.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace routing = hmoe::routing;

using shared_router =
    routing::router<routing::linear<double>, routing::top_k<>, routing::renormalized, routing::always_on>;

TEST_CASE("shared experts come last, for every token, with weight 1") {
  support::random_source random(41);
  shared_router router(4, 3, 2, {}, routing::always_on{2});
  support::fill(random, router.score().weight());
  CHECK(router.routed() == 3);
  CHECK(router.size() == 5);
  CHECK(router.max_selected() == 4);

  const std::size_t tokens = 70;
  const auto x = support::random_matrix<double>(random, tokens, 4);
  hmoe::router_trace<double> trace;
  trace.resize(tokens, router.routed(), router.saved_per_token(), true);
  hmoe::assignment<double> assigned;
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, x.view(), trace, assigned);
  assigned.validate(router.size());
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto ids = std::as_const(assigned).experts_of(t);
    const auto weights = std::as_const(assigned).weights_of(t);
    REQUIRE(ids.size() == 4);
    CHECK(ids[1] < 3);
    CHECK(ids[2] == 3);
    CHECK(ids[3] == 4);
    CHECK(weights[0] + weights[1] == doctest::Approx(1));
    CHECK(weights[2] == 1);
    CHECK(weights[3] == 1);
  }
  CHECK(trace.tokens_per_expert().size() == 3); // only those that compete count as load
}
