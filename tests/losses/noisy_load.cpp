// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/noisy.hpp>

#include "losses/load_formulas.hpp"
#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

using hmoe::losses::noisy_load;
using support::normal_cdf;
using support::squared_variation;

namespace {

/// A router over a batch, as a loss sees it.
struct noisy_batch {
  using router_type = hmoe::routing::router<hmoe::routing::noisy_linear<double>, hmoe::routing::top_k<>>;
  static constexpr std::size_t tokens = 7, d_model = 3, experts = 5, k = 2;
  hmoe::context<hmoe::backends::reference> ctx;
  router_type router{hmoe::routing::noisy_linear<double>(d_model, experts, 0.01), hmoe::routing::top_k<>{k}};
  hmoe::matrix<double> x;
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  std::vector<std::size_t> widths = std::vector<std::size_t>(experts, 1);

  explicit noisy_batch(support::random_source& random) : x(support::random_matrix<double>(random, tokens, d_model)) {
    router.visit_parameters(
        [&](const hmoe::parameter_info&, hmoe::matrix_view<double> w) { support::fill(random, w); });
  }
  void forward(bool with_noise = true) {
    const hmoe::workspace::scope scope(ctx.workspace());
    hmoe::routing_inputs<double> inputs;
    if (with_noise)
      inputs.noise = hmoe::noise_source{hmoe::seed{5}, 3};
    trace.resize(tokens, experts, router.saved_per_token(), true);
    trace.set_inputs(inputs);
    router.forward(ctx, x.view(), trace, assigned);
  }
  double evaluate(const noisy_load& loss) {
    hmoe::routed_batch<double> routed{trace, assigned, widths};
    return loss.evaluate(routed);
  }
};

} // namespace

TEST_CASE("noisy_load is Shazeer's, on clean logits and the learned deviation") {
  support::random_source random(122);
  noisy_batch batch(random);
  batch.forward();
  // Clean logits and deviations from the parameters, not from what the router saved.
  std::vector<double> loads(batch.experts);
  for (std::size_t t = 0; t < batch.tokens; ++t)
    for (std::size_t e = 0; e < batch.experts; ++e) {
      double clean = 0, r = 0;
      for (std::size_t c = 0; c < batch.d_model; ++c) {
        clean += batch.x(t, c) * batch.router.score().inner().weight()(e, c);
        r += batch.x(t, c) * batch.router.score().noise_weight()(e, c);
      }
      std::vector<double> others;
      for (std::size_t i = 0; i < batch.experts; ++i)
        if (i != e)
          others.push_back(batch.trace.logits()(t, i));
      std::ranges::sort(others, std::greater{});
      loads[e] += normal_cdf((clean - others[batch.k - 1]) / (std::log(1 + std::exp(r)) + 0.01));
    }
  CHECK(batch.evaluate(noisy_load{1, 0.01}) == doctest::Approx(squared_variation(loads)).epsilon(1e-11));
}

TEST_CASE("noisy_load is 0 at balance, for a single expert, and without tokens") {
  for (const auto& [tokens, experts] : {std::pair<std::size_t, std::size_t>{8, 4}, {3, 1}, {0, 4}}) {
    support::routing_batch batch(tokens, experts);
    batch.trace.resize(tokens, experts, 2 * experts, true);
    batch.trace.set_inputs({.noise = hmoe::noise_source{}});
    std::fill_n(batch.trace.score_saved().data(), batch.trace.score_saved().size(), 0.0); // spreads and noise
    const auto turn = [n = experts](std::size_t t, std::size_t e) { return (t + e) % n; };
    batch.set([&](std::size_t t, std::size_t e) { return static_cast<double>(turn(t, e)); },
              [&](std::size_t t, std::size_t e) { return turn(t, e) >= 2; });
    CHECK(batch.evaluate(noisy_load{}) == doctest::Approx(0).epsilon(1e-14));
  }
}

TEST_CASE("its gradient reaches both weight matrices and x through the router") {
  support::random_source random(123);
  noisy_batch batch(random);
  const noisy_load loss{0.9, 0.01};
  const auto value = [&] {
    batch.forward();
    return loss.coefficient * batch.evaluate(loss);
  };
  value(); // leaves its gradient in the sinks
  const std::vector<hmoe::index_t> selected(batch.assigned.experts().begin(), batch.assigned.experts().end());
  auto gradients = batch.router;
  hmoe::set_zero(gradients);
  hmoe::matrix<double> dx(batch.tokens, batch.d_model);
  {
    const hmoe::workspace::scope scope(batch.ctx.workspace());
    const std::vector<double> d_weights(batch.assigned.size());
    batch.router.backward(batch.ctx, std::as_const(batch.x).view(), std::as_const(batch.trace),
                          std::as_const(batch.assigned), hmoe::vector_view<const double>(d_weights), dx.view(),
                          gradients);
  }
  const auto check = [&](auto values, auto analytic) {
    CHECK(support::gradient_error({values.data(), values.size()},
                                  std::vector<double>(analytic.data(), analytic.data() + analytic.size()), value,
                                  {.step = 1e-5}) < 1e-6);
  };
  check(batch.router.score().noise_weight(), gradients.score().noise_weight());
  check(batch.router.score().inner().weight(), gradients.score().inner().weight());
  check(batch.x.view(), dx.view());
  batch.forward();
  CHECK(std::ranges::equal(batch.assigned.experts(), selected));
}

TEST_CASE("noisy_load says what it misses") {
  support::random_source random(124);
  noisy_batch batch(random);
  batch.forward(false);
  CHECK_THROWS_WITH_AS(batch.evaluate(noisy_load{}), doctest::Contains("routed with noise"), hmoe::error);
  batch.forward();
  CHECK_THROWS_WITH_AS(batch.evaluate(noisy_load{.column = 1}), doctest::Contains("the router saved 10"), hmoe::error);
  batch.trace.resize(2, 5, 0, false);
  CHECK_THROWS_WITH_AS(batch.evaluate(noisy_load{}), doctest::Contains("gradient sinks"), hmoe::error);
}
