// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <utility>

namespace routing = hmoe::routing;
using routing::linear;
using routing::router;
using routing::top_k;
using support::error_of;

namespace {
double sigma(double z) { return 1 / (1 + std::exp(-z)); }
} // namespace

TEST_CASE("shared experts behind a sigmoid gate: weight, gradients, size") {
  constexpr std::size_t d = 5, n = 4;
  using gated = router<linear<double>, top_k<>, routing::raw, routing::sigmoid_gated<double>>;
  gated r(d, n, 2, {}, routing::sigmoid_gated<double>(d, 2));
  support::random_source random(1);
  r.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  const auto x = support::random_matrix<double>(random, 70, d);
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(70, n, r.saved_per_token(), true);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  r.forward(ctx, x.view(), trace, assigned);
  assigned.validate(n + 2);
  for (std::size_t t = 0; t < 70; ++t) {
    REQUIRE(assigned.experts_of(t).size() == 4);
    for (std::size_t j = 0; j < 2; ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < d; ++c)
        sum += std::as_const(r).shared_policy().gate()(j, c) * x(t, c);
      CHECK(assigned.experts_of(t)[2 + j] == n + j);
      CHECK(assigned.weights_of(t)[2 + j] == doctest::Approx(sigma(sum)));
    }
  }
  CHECK_ROUTER_GRADIENTS(r);
  CHECK_ROUTER_GRADIENTS(gated(d, n, 2)); // one, made for d
  CHECK(gated(d, n, 2).size() == n + 1);
  CHECK(error_of([] { gated(d, n, 2, {}, routing::sigmoid_gated<double>(7)); }) ==
        "hmoe: the gate of the shared experts reads tokens of 7 values, the router of 5");
  CHECK(error_of([] { routing::sigmoid_gated<double>(5, 0); }) ==
        "hmoe: a gate from d_model = 5 to 0 shared experts: both must be at least 1");
}
