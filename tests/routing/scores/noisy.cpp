// SPDX-License-Identifier: MIT
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/noisy.hpp>

#include "routing/scores/logits.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;
using routing::router;
using routing::top_k;
using support::error_of;

TEST_CASE("learned noise: logits + n (softplus(W_n x) + epsilon), with n of mean 0 and variance 1 from the stream") {
  support::random_source random(3);
  routing::noisy<linear<double>> score(d, experts, 0.25);
  randomize(score, 4);
  const auto x = support::random_matrix<double>(random, 2000, d);
  const auto quiet = logits_of(score, x), loud = logits_of(score, x, with_noise()),
             again = logits_of(score, x, with_noise(), /*threads=*/3), other = logits_of(score, x, with_noise(4));
  double sum = 0, squares = 0;
  bool differs = false;
  for (std::size_t t = 0; t < x.rows(); ++t)
    for (std::size_t e = 0; e < experts; ++e) {
      const double clean = dot(x.row(t), std::as_const(score).inner().weight().row(e));
      const double spread = std::log1p(std::exp(dot(x.row(t), std::as_const(score).noise_weight().row(e)))) + 0.25;
      REQUIRE(quiet.logits()(t, e) == doctest::Approx(clean));
      REQUIRE(again.logits()(t, e) == loud.logits()(t, e));
      differs = differs || other.logits()(t, e) != loud.logits()(t, e);
      const double n = (loud.logits()(t, e) - clean) / spread;
      sum += n;
      squares += n * n;
    }
  const double count = 2000.0 * experts;
  CHECK(differs);
  CHECK(std::abs(sum / count) < 4 / std::sqrt(count));
  CHECK(std::abs(squares / count - 1) < 6 / std::sqrt(count));
  routing::noisy<linear<double>> drawn(d, experts);
  randomize(drawn, 5);
  drawn.initialize(hmoe::seed{1}, 0, {});
  CHECK(drawn.noise_weight()(0, 0) == 0);
  CHECK(drawn.inner().weight()(0, 0) != 0);
}

TEST_CASE("no tokens, and scratch within what the layer says") {
  using score = routing::noisy<routing::jittered<routing::cosine<double>>>;
  hmoe::moe_layer layer{
      hmoe::expert_set{hmoe::experts::glu_bank<double, hmoe::experts::silu>(d, std::vector<std::size_t>{1, 5, 2, 9})},
      router<score, top_k<>>(d, 4, 2)};
  layer.initialize(hmoe::seed{1});
  for (const std::size_t count : {0U, 1U, 70U}) {
    hmoe::workspace memory;
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
    support::random_source random(16);
    const auto x = support::random_matrix<double>(random, count, d);
    matrix<double> y(count, d), dx(count, d);
    auto tape = layer.make_tape(count);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x, y, tape, with_noise());
    layer.backward(ctx, tape, y, dx, gradients);
    layer.forward(ctx, x, y, with_noise());
    CHECK(memory.peak() <= layer.workspace_bytes(ctx, count));
  }
}

TEST_CASE("noisy refuses what cannot be, with the numbers") {
  CHECK(error_of([] { routing::noisy<linear<double>>(d, experts, -1); }) ==
        "hmoe: noisy with epsilon = -1: it must be finite and not below 0");
}
