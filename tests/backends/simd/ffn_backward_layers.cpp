// SPDX-License-Identifier: MIT
// Layers whose banks are computed at once: the same at every instruction-set level, but for the bits of the kernels.
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "backends/simd/ffn_batches.hpp"
#include "support/allocations.hpp" // packed_bank_layers.cpp of this program replaces the heap
#include "support/layer_gradients.hpp"
#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace {

using hmoe::matrix;
using hmoe::experts::biases;

hmoe::context<support::whole_banks, hmoe::executors::openmp> on(std::size_t threads) {
  return hmoe::context{support::whole_banks{}, hmoe::executors::openmp{threads}};
}

/// Experts of three kinds, one of which is computed row by row; odd sizes.
template <class T, class Dispatch> auto make_layer(Dispatch dispatch, std::size_t d, biases bias) {
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<T, hmoe::experts::silu>(d, {1, 17, 40, 3}, bias),
                                         hmoe::experts::identity_bank<T>(d, 1),
                                         hmoe::experts::mlp_bank<T, hmoe::experts::gelu>(d, {33, 2}, bias)},
                        hmoe::routing::top_k_router<T>(d, 7, 2), dispatch};
  support::random_source random(63);
  support::randomize(layer, random);
  return layer;
}

/// A forward and a backward pass of a layer over the first `tokens` of the same rows.
template <class T> struct layer_pass {
  matrix<T> y, dx;
  std::vector<T> gradients;

  template <class Context, class Layer> layer_pass(const Context& ctx, const Layer& layer, std::size_t tokens) {
    support::random_source random(64), other(65);
    const auto x = support::random_matrix<T>(random, tokens, layer.d_model());
    const auto dy = support::random_matrix<T>(other, tokens, layer.d_model());
    y = matrix<T>(tokens, layer.d_model());
    dx = matrix<T>(tokens, layer.d_model());
    auto tape = layer.make_tape(tokens);
    auto sums = layer.make_gradients();
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, dy, dx, sums);
    sums.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<T> view) {
      gradients.insert(gradients.end(), view.data(), view.data() + view.size());
    });
  }
};

template <class T> double largest_difference(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

} // namespace

TEST_CASE_TEMPLATE("a layer's gradients are those of the reference", T, float, double) {
  const double tolerance = std::numeric_limits<T>::epsilon() * 4000; // sums of up to 300 terms of size 1 to 10
  for (const std::size_t d : {1U, 3U, 17U, 40U}) {
    const auto layer = make_layer<T>(hmoe::dispatch::sorted{}, d, biases::all);
    for (const std::size_t tokens : {0U, 1U, 3U, 64U, 300U}) {
      CAPTURE(d);
      CAPTURE(tokens);
      const layer_pass<T> ours(on(2), layer, tokens),
          expected(hmoe::context{hmoe::backends::reference{}}, layer, tokens);
      double scale = 1;
      for (const T value : expected.gradients)
        scale = std::max(scale, std::abs(static_cast<double>(value)));
      CHECK(support::largest_difference(ours.y.view(), expected.y.view()) <= tolerance * static_cast<double>(d));
      CHECK(support::largest_difference(ours.dx.view(), expected.dx.view()) <= tolerance * static_cast<double>(d * d));
      CHECK(largest_difference(ours.gradients, expected.gradients) <= tolerance * scale);
    }
  }
}

TEST_CASE("a layer's gradients are those of finite differences") {
  for (const biases bias : {biases::none, biases::all}) {
    auto layer = make_layer<double>(hmoe::dispatch::scattered{}, 5, bias);
    support::random_source random(66);
    const auto x = support::random_matrix<double>(random, 9, 5), dy = support::random_matrix<double>(random, 9, 5);
    const auto [error, name] = support::layer_gradient_error(on(2), layer, x, dy);
    CAPTURE(name);
    CHECK(error < 1e-6);
  }
}

TEST_CASE_TEMPLATE("training gives a token the same bits in any batch, on any threads, by any dispatch", T, float) {
  for (const std::size_t d : {3U, 40U}) {
    const layer_pass<T> longest(on(1), make_layer<T>(hmoe::dispatch::sorted{}, d, biases::all), 300);
    for (const std::size_t tokens : {1U, 3U, 64U, 300U}) {
      const layer_pass<T> expected(on(1), make_layer<T>(hmoe::dispatch::sorted{}, d, biases::all), tokens);
      CHECK(std::memcmp(expected.y.data(), longest.y.data(), tokens * d * sizeof(T)) == 0);
      CHECK(std::memcmp(expected.dx.data(), longest.dx.data(), tokens * d * sizeof(T)) == 0);
      const auto check = [&](auto dispatch) {
        for (const std::size_t threads : {1U, 2U, 3U}) {
          CAPTURE(d);
          CAPTURE(tokens);
          CAPTURE(threads);
          const layer_pass<T> ours(on(threads), make_layer<T>(dispatch, d, biases::all), tokens);
          CHECK(support::same_bits(ours.y, expected.y));
          CHECK(support::same_bits(ours.dx, expected.dx));
          CHECK(support::same_bits(ours.gradients, expected.gradients));
        }
      };
      check(hmoe::dispatch::sorted{});
      check(hmoe::dispatch::looped{});
      check(hmoe::dispatch::scattered{});
      check(hmoe::dispatch::dense{});
    }
  }
}

TEST_CASE_TEMPLATE("training takes what workspace_bytes announces, and nothing else", T, float) {
  const auto check = [](auto dispatch, std::size_t d) {
    const auto layer = make_layer<T>(dispatch, d, biases::all);
    support::random_source random(67);
    for (const std::size_t tokens : {1U, 2U, 17U, 300U})
      for (const std::size_t threads : {1U, 3U}) {
        CAPTURE(tokens);
        CAPTURE(threads);
        hmoe::workspace memory;
        const hmoe::context ctx{support::whole_banks{}, hmoe::executors::openmp{threads}, memory};
        memory.reserve(layer.workspace_bytes(ctx, tokens));
        const auto x = support::random_matrix<T>(random, tokens, d), dy = support::random_matrix<T>(random, tokens, d);
        matrix<T> y(tokens, d), dx(tokens, d);
        auto tape = layer.make_tape(tokens);
        auto gradients = layer.make_gradients();
        const auto step = [&] {
          layer.forward(ctx, x, y);
          layer.forward(ctx, x, y, tape);
          layer.backward(ctx, tape, dy, dx, gradients);
        };
        if (threads == 1)
          CHECK(support::allocations_in(step) == 0);
        else
          step(); // OpenMP itself may allocate
        CHECK(memory.peak() <= layer.workspace_bytes(ctx, tokens));
        CHECK(memory.capacity() == layer.workspace_bytes(ctx, tokens));
      }
  };
  for (const std::size_t d : {1U, 40U, 300U}) {
    check(hmoe::dispatch::sorted{}, d);
    check(hmoe::dispatch::looped{}, d);
    check(hmoe::dispatch::scattered{}, d);
  }
}
