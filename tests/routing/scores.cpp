// SPDX-License-Identifier: MIT
// Scores other than the plain linear one: their logits against plain loops, their gradients through a whole layer.
#include <hmoe/execution/openmp.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::matrix;
using routing::linear;
using routing::router;
using routing::top_k;
using support::error_of;

namespace {
constexpr std::size_t d = 5, experts = 6, tokens = 9;

hmoe::routing_inputs<double> with_noise(std::uint64_t step = 3) {
  return {.noise = hmoe::noise_source{hmoe::seed{17}, step}};
}

template <class Score> void randomize(Score& score, std::uint64_t seed) {
  support::random_source random(seed);
  score.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
}

/// The logits of a score, and what it saved.
template <class Score>
hmoe::router_trace<double> logits_of(const Score& score, const matrix<double>& x,
                                     const hmoe::routing_inputs<double>& inputs = {}, std::size_t threads = 1) {
  hmoe::router_trace<double> trace;
  trace.resize(x.rows(), score.size(), score.saved_per_token(), true);
  trace.set_inputs(inputs);
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
  const hmoe::workspace::scope scope(ctx.workspace());
  score.forward(ctx, x.view(), trace);
  return trace;
}

double dot(hmoe::vector_view<const double> a, hmoe::vector_view<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += a[i] * b[i];
  return sum;
}

} // namespace

TEST_CASE("a linear score with bias adds it to every token's logits") {
  support::random_source random(1);
  linear<double, routing::softmax, true> score(d, experts);
  randomize(score, 2);
  const auto x = support::random_matrix<double>(random, tokens, d);
  const auto trace = logits_of(score, x);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t e = 0; e < experts; ++e)
      CHECK(trace.logits()(t, e) ==
            doctest::Approx(dot(x.row(t), std::as_const(score).weight().row(e)) + std::as_const(score).bias()[e]));
  linear<double, routing::softmax, true> drawn(d, experts);
  drawn.bias()[2] = 1;
  drawn.initialize(hmoe::seed{1}, 0, {});
  CHECK(drawn.bias()[2] == 0);
}

TEST_CASE("learned noise: logits + n (softplus(W_n x) + epsilon), with n of mean 0 and variance 1 from the stream") {
  support::random_source random(3);
  routing::noisy<linear<double>> score(d, experts, 0.25);
  randomize(score, 4);
  const auto x = support::random_matrix<double>(random, 2000, d);
  const auto quiet = logits_of(score, x), loud = logits_of(score, x, with_noise()),
             again = logits_of(score, x, with_noise(), 3), other = logits_of(score, x, with_noise(4));
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

TEST_CASE("Gumbel noise makes the top expert a draw from the softmax") {
  routing::gumbel<linear<double>> score(1, 3);
  score.inner().weight()(0, 0) = std::log(0.2);
  score.inner().weight()(1, 0) = std::log(0.5);
  score.inner().weight()(2, 0) = std::log(0.3);
  matrix<double> x(20000, 1);
  for (std::size_t t = 0; t < x.rows(); ++t)
    x(t, 0) = 1;
  CHECK(logits_of(score, x).logits()(0, 1) == std::log(0.5));
  const auto trace = logits_of(score, x, with_noise());
  std::vector<double> rate(3);
  for (std::size_t t = 0; t < x.rows(); ++t)
    rate[routing::next_preferred(trace.logits().row(t), hmoe::no_index)] += 1.0 / 20000;
  CHECK(rate[0] == doctest::Approx(0.2).epsilon(0.05));
  CHECK(rate[1] == doctest::Approx(0.5).epsilon(0.05));
  CHECK(rate[2] == doctest::Approx(0.3).epsilon(0.05));
}

TEST_CASE("jitter multiplies each input value by its own factor within 1 - epsilon and 1 + epsilon") {
  routing::jittered<linear<double>> score(3, 3, 0.1);
  for (std::size_t i = 0; i < 3; ++i)
    score.inner().weight()(i, i) = 1; // the logits are the input that it sees
  matrix<double> x(3000, 3);
  for (std::size_t i = 0; i < x.size(); ++i)
    x.data()[i] = 2;
  CHECK(logits_of(score, x).logits()(7, 1) == 2);
  const auto trace = logits_of(score, x, with_noise());
  double lowest = 9, highest = 0, sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double factor = trace.logits().data()[i] / 2;
    lowest = std::min(lowest, factor);
    highest = std::max(highest, factor);
    sum += factor;
  }
  CHECK(lowest > 0.9);
  CHECK(lowest < 0.901);
  CHECK(highest < 1.1);
  CHECK(highest > 1.099);
  CHECK(sum / 9000 == doctest::Approx(1).epsilon(0.002));
}

TEST_CASE("kinds of noise are independent of each other") {
  matrix<double> x(1000, 1);
  for (std::size_t t = 0; t < x.rows(); ++t)
    x(t, 0) = 1;
  routing::gumbel<linear<double>> gumbel(1, 1);
  routing::noisy<linear<double>> normal(1, 1);
  routing::jittered<linear<double>> jitter(1, 1, 0.5);
  jitter.inner().weight()(0, 0) = 1;
  const auto a = logits_of(gumbel, x, with_noise()), b = logits_of(normal, x, with_noise()),
             c = logits_of(jitter, x, with_noise());
  const auto correlation = [&](const auto& u, const auto& v) {
    double su = 0, sv = 0, suu = 0, svv = 0, suv = 0;
    for (std::size_t t = 0; t < 1000; ++t) {
      const double p = u.logits()(t, 0), q = v.logits()(t, 0);
      su += p, sv += q, suu += p * p, svv += q * q, suv += p * q;
    }
    return (suv - su * sv / 1000) / std::sqrt((suu - su * su / 1000) * (svv - sv * sv / 1000));
  };
  CHECK(std::abs(correlation(a, b)) < 0.12);
  CHECK(std::abs(correlation(a, c)) < 0.12);
  CHECK(std::abs(correlation(b, c)) < 0.12);
}

TEST_CASE("cosine logits are cos(W_p x, e_i) / temperature") {
  support::random_source random(6);
  routing::cosine<double> score(d, experts, {.dimension = 3, .temperature = 0.2});
  randomize(score, 7);
  score.set_temperature(0.2);
  CHECK(score.temperature() == doctest::Approx(0.2));
  auto x = support::random_matrix<double>(random, tokens, d);
  std::fill_n(x.row(4).data(), d, 0.0); // no direction at all
  const auto trace = logits_of(score, x);
  const auto& frozen = score;
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<double> u;
    for (std::size_t c = 0; c < 3; ++c)
      u.push_back(dot(x.row(t), frozen.projection().row(c)));
    for (std::size_t e = 0; e < experts; ++e) {
      const auto v = frozen.embeddings().row(e);
      const double cosine = t == 4 ? 0 : dot(u, v) / std::sqrt(dot(u, u) * dot(v, v));
      CHECK(trace.logits()(t, e) == doctest::Approx(cosine / 0.2));
    }
  }
  CHECK(routing::cosine<double>(d, experts).dimension() == 3);
  CHECK(routing::cosine<double>(d, 1).dimension() == 1);
  CHECK(routing::cosine<double>(d, experts).temperature() == doctest::Approx(0.07));
}

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

TEST_CASE("every score has the gradients of the whole layer right") {
  SUBCASE("linear with bias") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::softmax, true>, top_k<>>(d, experts, 2));
  }
  SUBCASE("sigmoid") { CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sigmoid>, top_k<>>(d, experts, 2)); }
  SUBCASE("square root of softplus") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sqrt_softplus>, top_k<>>(d, experts, 2));
  }
  SUBCASE("relu") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::relu>, routing::positive, routing::raw>(d, experts));
  }
  SUBCASE("unscored") {
    CHECK_ROUTER_GRADIENTS(
        router<linear<double, routing::unscored, true>, top_k<>, routing::softmax_over_selected>(d, experts, 3));
  }
  SUBCASE("cosine") { CHECK_ROUTER_GRADIENTS(router<routing::cosine<double>, top_k<>>(d, experts, 2)); }
  SUBCASE("cosine with sigmoid") {
    CHECK_ROUTER_GRADIENTS(router<routing::cosine<double, routing::sigmoid>, top_k<>, routing::raw>(d, experts, 2));
  }
  SUBCASE("noisy") {
    CHECK_ROUTER_GRADIENTS(router<routing::noisy_linear<double>, top_k<>>(d, experts, 2), with_noise());
  }
  SUBCASE("noisy without noise") {
    CHECK_ROUTER_GRADIENTS(router<routing::noisy_linear<double>, top_k<>>(d, experts, 2));
  }
  SUBCASE("gumbel") {
    CHECK_ROUTER_GRADIENTS(router<routing::gumbel<linear<double>>, top_k<>>(d, experts, 2), with_noise());
  }
  SUBCASE("jittered") {
    using score = routing::jittered<linear<double>>;
    CHECK_ROUTER_GRADIENTS(router<score, top_k<>>(score(d, experts, 0.4), 2), with_noise());
  }
  SUBCASE("all wrappers around cosine") {
    using score = routing::gumbel<routing::noisy<routing::jittered<routing::cosine<double>>>>;
    CHECK_ROUTER_GRADIENTS(router<score, top_k<>>(d, experts, 2), with_noise());
  }
  SUBCASE("residual around noisy") {
    using score = routing::gate_residual<routing::noisy_linear<double>>;
    support::random_source random(13);
    hmoe::router_trace<double> previous;
    previous.resize(7, experts, 0, true);
    support::fill(random, previous.logits());
    auto inputs = with_noise();
    inputs.previous = &previous;
    CHECK_ROUTER_GRADIENTS(router<score, top_k<>>(d, experts, 2), inputs);
  }
}

TEST_CASE("no_score leaves every expert alike and has nothing to learn") {
  matrix<double> x(3, d);
  routing::no_score<double> score(d, experts);
  const auto trace = logits_of(score, x);
  for (std::size_t i = 0; i < 3 * experts; ++i)
    CHECK(trace.logits().data()[i] == 0);
  std::size_t visited = 0;
  score.visit_parameters([&](const auto&...) { ++visited; });
  CHECK(visited == 0);
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

TEST_CASE("scores refuse what cannot be, with the numbers") {
  CHECK(error_of([] { routing::noisy<linear<double>>(d, experts, -1); }) ==
        "hmoe: noisy with epsilon = -1: it must be finite and not below 0");
  CHECK(error_of([] { routing::jittered<linear<double>>(d, experts, 1); }) ==
        "hmoe: jittered with epsilon = 1: it must be in [0, 1)");
  CHECK(error_of([] { routing::gumbel<linear<double>>(d, experts, -2); }) ==
        "hmoe: gumbel with scale = -2: it must be finite and not below 0");
  CHECK(error_of([] { routing::cosine<double>(d, experts, {.temperature = 0}); }) ==
        "hmoe: cosine with temperature = 0: it must be finite and above 0");
  CHECK(error_of([] { routing::gate_residual<linear<double>>(linear<double>(d, experts), 0); }) ==
        "hmoe: gate_residual from a layer of 0 experts: there must be at least 1");
}
