// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

namespace support {

template <class T>
using narrow_and_wide = hmoe::expert_set<hmoe::experts::glu_bank<T, hmoe::experts::silu>,
                                         hmoe::experts::mlp_bank<T, hmoe::experts::gelu_tanh>>;

template <class T, class Dispatch, class Router> auto make_layer(Dispatch dispatch, Router router) {
  hmoe::moe_layer layer{
      narrow_and_wide<T>(hmoe::experts::glu_bank<T, hmoe::experts::silu>(10, {1, 5, 3, 8}, hmoe::experts::biases::all),
                         hmoe::experts::mlp_bank<T, hmoe::experts::gelu_tanh>(10, {4, 2})),
      std::move(router), dispatch};
  layer.initialize(hmoe::seed{11}, {.router_stddev = 1});
  random_source random(12); // biases start at zero, which would not show
  layer.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<T> view) {
    if (!info.decay)
      fill(random, view);
  });
  return layer;
}

/// All that two passes over a batch compute.
template <class T> struct pass_result {
  std::vector<T> y, inferred, dx, gradients;
};

template <class Layer, class Context> auto run_passes(const Layer& layer, const Context& ctx, std::size_t tokens) {
  using T = typename Layer::value_type;
  random_source random(13); // rows of a short batch are the first rows of a longer one
  const auto x = random_matrix<T>(random, tokens, 10);
  random_source other(14);
  const auto dy = random_matrix<T>(other, tokens, 10);
  hmoe::matrix<T> y(tokens, 10), inferred(tokens, 10), dx(tokens, 10);
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x, inferred);
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, dy, dx, gradients);
  const auto values = [](auto view) { return std::vector<T>(view.data(), view.data() + view.size()); };
  pass_result<T> result{values(y.view()), values(inferred.view()), values(dx.view()), {}};
  gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<T> view) {
    result.gradients.insert(result.gradients.end(), view.data(), view.data() + view.size());
  });
  return result;
}

/// Against dense with the reference backend: same bits, on 1 to 3 threads, for top-k and top-p.
template <class T, class Dispatch> void check_strategy(Dispatch dispatch) {
  const auto on = [](std::size_t threads) {
    return hmoe::context{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
  };
  const auto check = [&](auto router) {
    const auto oracle = make_layer<T>(hmoe::dispatch::dense{}, router);
    const auto layer = make_layer<T>(dispatch, router);
    for (const std::size_t tokens : {0U, 1U, 3U, 64U, 300U}) {
      CAPTURE(tokens);
      const auto expected = run_passes(oracle, on(1), tokens);
      for (const std::size_t threads : {1U, 2U, 3U}) {
        CAPTURE(threads);
        const auto got = run_passes(layer, on(threads), tokens);
        CHECK(same_bits(got.y, expected.y));
        CHECK(same_bits(got.inferred, expected.y));
        CHECK(same_bits(got.dx, expected.dx));
        CHECK(same_bits(got.gradients, expected.gradients));
      }
    }
    // What a token gets does not depend on its batch.
    const auto longest = run_passes(layer, on(1), 300);
    for (const std::size_t tokens : {1U, 3U, 64U}) {
      const auto shorter = run_passes(layer, on(1), tokens);
      CHECK(std::memcmp(shorter.y.data(), longest.y.data(), tokens * 10 * sizeof(T)) == 0);
      CHECK(std::memcmp(shorter.dx.data(), longest.dx.data(), tokens * 10 * sizeof(T)) == 0);
    }
  };
  check(hmoe::routing::top_k_router<T>(10, 6, 2));
  check(hmoe::routing::top_p_router<T>(10, 6, 0.6));
}

} // namespace support
