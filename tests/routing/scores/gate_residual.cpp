// SPDX-License-Identifier: MIT
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "routing/scores/logits.hpp"
#include "support/error_of.hpp"
#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;
using routing::router;
using routing::top_k;
using support::error_of;

TEST_CASE("the gate's residual adds W_g times the previous logits, and sends its gradient there") {
  support::random_source random(8);
  const std::size_t before = 4;
  router<routing::gate_residual<linear<double>>, top_k<>, routing::raw> gate(
      routing::gate_residual<linear<double>>(linear<double>(d, experts), before), top_k<>{2});
  randomize(gate.score(), 9);
  const auto x = support::random_matrix<double>(random, tokens, d);
  auto earlier = support::random_matrix<double>(random, tokens, before);
  hmoe::router_trace<double> previous;
  const auto fill_previous = [&] {
    previous.resize(tokens, before, 0, true);
    std::copy_n(earlier.data(), earlier.size(), previous.logits().data());
  };
  fill_previous();
  const auto trace = logits_of(gate.score(), x, {.previous = &previous}), alone = logits_of(gate.score(), x);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t e = 0; e < experts; ++e) {
      const double z = dot(x.row(t), gate.score().inner().weight().row(e));
      CHECK(alone.logits()(t, e) == doctest::Approx(z));
      CHECK(trace.logits()(t, e) ==
            doctest::Approx(z + dot(earlier.row(t), std::as_const(gate).score().residual_weight().row(e))));
    }
  CHECK_ROUTER_GRADIENTS(gate, {.previous = &previous}, {.tokens = tokens});

  // What the pass above added to the sinks of the previous layer, alone: L = Σ a∘logits.
  fill_previous();
  const auto a = support::random_matrix<double>(random, tokens, experts);
  auto gradients = gate.score();
  matrix<double> dx(tokens, d);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  gate.score().backward(ctx, x.view(), trace, a.view(), dx.view(), gradients);
  const auto loss = [&] {
    std::copy_n(earlier.data(), earlier.size(), previous.logits().data());
    const auto now = logits_of(gate.score(), x, {.previous = &previous});
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += a.data()[i] * now.logits().data()[i];
    return sum;
  };
  const std::vector<double> claimed(previous.d_logits().data(), previous.d_logits().data() + tokens * before);
  CHECK(support::gradient_error({earlier.data(), earlier.size()}, claimed, loss) < 1e-6);

  hmoe::router_trace<double> wrong;
  wrong.resize(3, before, 0, true);
  CHECK(error_of([&] { logits_of(gate.score(), x, {.previous = &wrong}); }) ==
        "hmoe: the previous layer's logits are 3 x 4, needed are 9 x 4");
}

TEST_CASE("two layers with a residual gate between them have the gradient of the whole") {
  // A gate with residual after a plain one: the loss is on the second logits, the parameter in the first layer.
  support::random_source random(10);
  linear<double> first(d, experts);
  routing::gate_residual<linear<double>> second(d, experts);
  randomize(first, 11);
  randomize(second, 12);
  const auto x = support::random_matrix<double>(random, tokens, d),
             a = support::random_matrix<double>(random, tokens, experts);
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto one = logits_of(first, x);
  const auto two = logits_of(second, x, {.previous = &one});
  matrix<double> dx(tokens, d);
  auto d_first = first;
  auto d_second = second;
  hmoe::set_zero(d_first);
  const hmoe::workspace::scope scope(ctx.workspace());
  second.backward(ctx, x.view(), two, a.view(), dx.view(), d_second);
  first.backward(ctx, x.view(), one, std::as_const(one).d_logits(), dx.view(), d_first);
  const auto loss = [&] {
    auto now = logits_of(first, x);
    const auto then = logits_of(second, x, {.previous = &now});
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += a.data()[i] * then.logits().data()[i];
    return sum;
  };
  const auto weight = first.weight();
  const auto claimed = d_first.weight();
  CHECK(support::gradient_error({weight.data(), weight.size()}, std::span<const double>(claimed.data(), claimed.size()),
                                loss) < 1e-6);
}

TEST_CASE("gate_residual refuses what cannot be, with the numbers") {
  CHECK(error_of([] { routing::gate_residual<linear<double>>(linear<double>(d, experts), 0); }) ==
        "hmoe: gate_residual from a layer of 0 experts: there must be at least 1");
}
