// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/shared/jointly_weighted.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <utility>

namespace routing = hmoe::routing;

namespace {
constexpr std::size_t d = 5, n = 6, shared = 2;
double sigma(double z) { return 1 / (1 + std::exp(-z)); }
} // namespace

TEST_CASE("one sum over the chosen and the shared experts: weights by the formula, the trace without shared ones") {
  routing::presets::inkling<double> r{d, n, {n, 3}, {.factor = 2.5}, routing::jointly_weighted<double>{d, shared}};
  CHECK(r.size() == n + shared);
  support::random_source random(41);
  r.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  const auto x = support::random_matrix<double>(random, 40, d);
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(40, n, 0, true);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  r.forward(ctx, x.view(), trace, assigned);
  assigned.validate(n + shared);
  for (std::size_t t = 0; t < 40; ++t) {
    const auto ids = assigned.experts_of(t);
    REQUIRE(ids.size() == 3 + shared);
    double scores[3 + shared], sum = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      double z = 0;
      for (std::size_t c = 0; c < d; ++c)
        z += (ids[i] < n ? r.score().weight()(ids[i], c) : r.shared_policy().gate()(ids[i] - n, c)) * x(t, c);
      sum += scores[i] = sigma(z);
    }
    for (std::size_t i = 0; i < ids.size(); ++i)
      CHECK(assigned.weights_of(t)[i] == doctest::Approx(2.5 * scores[i] / sum).epsilon(1e-13));
  }
  CHECK(trace.tokens_per_expert().size() == n);
}

TEST_CASE("gradients through the common sum, with learned scales of all experts") {
  CHECK_ROUTER_GRADIENTS(
      routing::presets::inkling<double>{d, n, {n, 3}, {.factor = 2.5}, routing::jointly_weighted<double>{d, shared}});
  using score = routing::linear<double, routing::sqrt_softplus>;
  using weighting = routing::scaled_per_expert<double>;
  using joint = routing::jointly_weighted<double, routing::sqrt_softplus>;
  CHECK_ROUTER_GRADIENTS(
      routing::router<score, routing::top_k<>, weighting, joint>{d, n, 2, weighting(n + shared), joint(d, shared)});
}

TEST_CASE("sizes that do not fit are refused") {
  using routing::jointly_weighted;
  CHECK(support::error_of([] { jointly_weighted<double>(3, 0); }) ==
        "hmoe: a gate from d_model = 3 to 0 shared experts: both must be at least 1");
  CHECK(support::error_of([] {
          routing::presets::inkling<double>{d, n, {n, 3}, {.factor = 1}, jointly_weighted<double>{d + 1}};
        }) == "hmoe: the gate of the shared experts reads tokens of 6 values, the router of 5");
  using weighting = routing::scaled_per_expert<double>;
  CHECK(support::error_of([] {
          routing::router<routing::linear<double>, routing::top_k<>, weighting, jointly_weighted<double>>{
              d, n, 2, weighting(n), jointly_weighted<double>(d)};
        }) == "hmoe: scaled_per_expert has scales for 6 experts, there are 7");
}
