// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "support/counting_backend.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

namespace {

using namespace hmoe;
using support::counting_backend;

constexpr std::size_t d = 6, tokens = 150;

/// Multiply-adds of inference, and of forward and backward together, that are not the router's.
template <class Layer> std::pair<std::size_t, std::size_t> work_of_experts(const Layer& layer, tape<float>& tape) {
  support::random_source random(51);
  const auto x = support::random_matrix<float>(random, tokens, d),
             dy = support::random_matrix<float>(random, tokens, d);
  matrix<float> y(tokens, d), dx(tokens, d);
  auto gradients = layer.make_gradients();
  counting_backend::counts inference, training;
  layer.forward(context{counting_backend{&inference}}, x, y);
  const context ctx{counting_backend{&training}};
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, dy, dx, gradients);
  const std::size_t router = tokens * layer.size() * d; // once forward, twice backward
  REQUIRE(inference.multiply_adds >= router);
  REQUIRE(training.multiply_adds >= 3 * router);
  return {inference.multiply_adds - router, training.multiply_adds - 3 * router};
}

template <class Dispatch> void check_only_zero_cost(Dispatch dispatch) {
  moe_layer layer{expert_set{experts::identity_bank<float>(d, 2), experts::zero_bank<float>(d),
                             experts::constant_bank<float>(d, 3)},
                  routing::top_k_router<float>(d, 6, 2), dispatch};
  layer.initialize(seed{1}, {.router_stddev = 1});
  auto tape = layer.make_tape(tokens);
  const auto [inference, training] = work_of_experts(layer, tape);
  CHECK(inference == 0);
  CHECK(training == 0);
  for (const index_t count : tape.trace().tokens_per_expert())
    CHECK(count > 0); // each kind was used
}

template <class Dispatch> void check_beside_others(Dispatch dispatch, bool everything) {
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(d, {3, 8}), experts::identity_bank<float>(d),
                             experts::zero_bank<float>(d), experts::constant_bank<float>(d)},
                  routing::top_k_router<float>(d, 5, 2), dispatch};
  layer.initialize(seed{2}, {.router_stddev = 1});
  auto tape = layer.make_tape(tokens);
  const auto [inference, training] = work_of_experts(layer, tape);
  std::size_t expected = 0; // a GLU has 3 d h multiply-adds per row
  for (std::size_t e = 0; e < 2; ++e) {
    const std::size_t rows = everything ? tokens : tape.plan().rows_of(e);
    CHECK(rows > 0);
    expected += rows * 3 * d * layer.widths()[e];
  }
  CHECK(inference == expected);
  CHECK(training == 3 * expected);
}

} // namespace

TEST_CASE("zero-cost experts never reach a matrix product") {
  check_only_zero_cost(dispatch::dense{});
  check_only_zero_cost(dispatch::looped{});
  check_only_zero_cost(dispatch::sorted{});
  check_only_zero_cost(dispatch::sorted{capacity::by_factor{1}});
  check_only_zero_cost(dispatch::padded{capacity::by_factor{1.25}});
}

TEST_CASE("beside zero-cost experts the others do their own work and no more") {
  check_beside_others(dispatch::dense{}, true);
  check_beside_others(dispatch::looped{}, false);
  check_beside_others(dispatch::sorted{}, false);
  check_beside_others(dispatch::sorted{capacity::by_width{0.7}}, false);
  check_beside_others(dispatch::padded{capacity::by_factor{1.25}}, false);
}

TEST_CASE("zero-cost experts do to a token what they say, in the layer") {
  moe_layer layer{expert_set{experts::identity_bank<double>(d), experts::zero_bank<double>(d)},
                  routing::top_k_router<double>(d, 2, 2)};
  layer.initialize(seed{3}, {.router_stddev = 1});
  support::random_source random(52);
  const auto x = support::random_matrix<double>(random, 9, d);
  matrix<double> y(9, d);
  auto tape = layer.make_tape(9);
  layer.forward(context{backends::reference{}}, x, y, tape);
  for (std::size_t t = 0; t < 9; ++t)
    for (std::size_t i = 0; i < d; ++i)
      CHECK(y(t, i) == tape.assignment().weights()[2 * t] * x(t, i));
}
