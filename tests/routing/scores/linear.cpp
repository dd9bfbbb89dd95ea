// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/routing/scores/linear.hpp>

#include "routing/scores/logits.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <utility>

using hmoe::matrix;

TEST_CASE("logits are x times the weight transposed, for every number of tokens and threads") {
  support::random_source random(31);
  hmoe::routing::linear<float> score(7, 5);
  support::fill(random, score.weight());
  for (const std::size_t tokens : {0U, 1U, 63U, 64U, 65U, 200U}) {
    const auto x = support::random_matrix<float>(random, tokens, 7);
    hmoe::router_trace<float> trace, parallel;
    trace.resize(tokens, 5, score.saved_per_token(), true);
    parallel.resize(tokens, 5, score.saved_per_token(), true);
    score.forward(hmoe::context{hmoe::backends::reference{}}, x.view(), trace);
    score.forward(hmoe::context{hmoe::backends::reference{}, hmoe::executors::openmp{3}}, x.view(), parallel);
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t e = 0; e < 5; ++e) {
        double sum = 0;
        for (std::size_t i = 0; i < 7; ++i)
          sum += double{std::as_const(score).weight()(e, i)} * double{x(t, i)};
        REQUIRE(trace.logits()(t, e) == static_cast<float>(sum));
        REQUIRE(parallel.logits()(t, e) == trace.logits()(t, e));
      }
  }
}

TEST_CASE("the way back adds to dx and to the weight's gradient, with the same bits on every number of threads") {
  support::random_source random(32);
  const std::size_t tokens = 150, d = 70, experts = 3; // more than one block of rows and of columns
  hmoe::routing::linear<double> score(d, experts);
  support::fill(random, score.weight());
  const auto x = support::random_matrix<double>(random, tokens, d),
             dz = support::random_matrix<double>(random, tokens, experts);
  const hmoe::router_trace<double> trace;
  matrix<double> reference_dx;
  hmoe::routing::linear<double> reference_gradient(d, experts);
  for (const std::size_t threads : {1U, 2U, 3U}) {
    matrix<double> dx(tokens, d);
    for (std::size_t t = 0; t < tokens; ++t)
      dx(t, 0) = 5;
    hmoe::routing::linear<double> gradient(d, experts);
    gradient.weight()(0, 0) = 7;
    score.backward(hmoe::context{hmoe::backends::reference{}, hmoe::executors::openmp{threads}}, x.view(), trace,
                   dz.view(), dx.view(), gradient);
    if (threads == 1) {
      reference_dx = dx;
      reference_gradient = gradient;
      for (const std::size_t t : {0U, 64U, 149U})
        for (const std::size_t i : {0U, 1U, 69U}) {
          double sum = i == 0 ? 5 : 0;
          for (std::size_t e = 0; e < experts; ++e)
            sum += dz(t, e) * std::as_const(score).weight()(e, i);
          CHECK(dx(t, i) == doctest::Approx(sum).epsilon(1e-12));
        }
      for (std::size_t e = 0; e < experts; ++e)
        for (const std::size_t i : {0U, 1U, 64U, 69U}) {
          double sum = e == 0 && i == 0 ? 7 : 0;
          for (std::size_t t = 0; t < tokens; ++t)
            sum += dz(t, e) * x(t, i);
          CHECK(gradient.weight()(e, i) == doctest::Approx(sum).epsilon(1e-12));
        }
    }
    CHECK(std::memcmp(dx.data(), reference_dx.data(), dx.size() * sizeof(double)) == 0);
    CHECK(std::memcmp(gradient.weight().data(), reference_gradient.weight().data(), d * experts * sizeof(double)) == 0);
  }
}

TEST_CASE("a router between nothing is refused") {
  CHECK_THROWS_WITH_AS(hmoe::routing::linear<float>(0, 3),
                       "hmoe: a router from d_model = 0 to 3 experts: both must be at least 1", hmoe::error);
  CHECK_THROWS_AS(hmoe::routing::linear<float>(3, 0), hmoe::error);
}

namespace {
using namespace score_checks;
using hmoe::routing::linear;
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
