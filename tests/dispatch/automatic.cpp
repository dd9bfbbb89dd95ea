// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/automatic.hpp>

#include "dispatch/strategies.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace hmoe::dispatch;

namespace {
/// A table that takes one strategy for all batches of the layer in dispatch/strategies.hpp.
template <class T> automatic always(strategy s, std::size_t threads) {
  const auto layer = support::make_layer<T>(sorted{}, hmoe::routing::top_k_router<T>(10, 6, 2));
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
  return automatic{tuned_table{"any", shape_of(ctx, layer.experts()), {{1, 1, s, s}}}};
}
} // namespace

TEST_CASE("automatic has the bits of dense, on any threads and in any batch") {
  support::check_strategy<float>(automatic{});
}

TEST_CASE("whatever a table picks, forward and backward fit together, in the announced memory") {
  for (const strategy s :
       {strategy::per_token, strategy::scattered, strategy::sorted, strategy::blocked, strategy::looped})
    for (const std::size_t threads : {1U, 2U}) {
      CAPTURE(name_of(s));
      hmoe::workspace memory;
      const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}, memory};
      const hmoe::routing::top_k_router<double> router(10, 6, 2);
      const auto oracle = support::make_layer<double>(dense{}, router);
      const auto layer = support::make_layer<double>(always<double>(s, threads), router);
      const auto expected = support::run_passes(oracle, hmoe::context{hmoe::backends::reference{}}, 70);
      const auto got = support::run_passes(layer, ctx, 70);
      CHECK(support::same_bits(got.y, expected.y));
      CHECK(support::same_bits(got.inferred, expected.y));
      CHECK(support::same_bits(got.dx, expected.dx));
      CHECK(support::same_bits(got.gradients, expected.gradients));
      CHECK(memory.peak() <= layer.workspace_bytes(ctx, 70));
      auto tape = layer.make_tape(70);
      support::random_source random(1);
      const auto x = support::random_matrix<double>(random, 70, 10);
      hmoe::matrix<double> y(70, 10);
      layer.forward(ctx, x, y, tape);
      const explanation said = layer.explain(ctx, tape.assignment(), true);
      CHECK(said.picked == s);
      CHECK(said.reason == "the table of measured times");
    }
}

TEST_CASE("a table of other experts or threads is refused in words") {
  const auto layer =
      support::make_layer<double>(always<double>(strategy::sorted, 2), hmoe::routing::top_k_router<double>(10, 6, 2));
  const hmoe::matrix<double> x(3, 10);
  hmoe::matrix<double> y(3, 10);
  y(0, 0) = 7;
  const std::string text = support::error_of([&] { layer.forward(hmoe::context{hmoe::backends::reference{}}, x, y); });
  CHECK(text.starts_with("hmoe: dispatch::automatic: the table was tuned for 6 experts of d_model 10 with "));
  CHECK(text.ends_with(" bytes on 1: tune it with dispatch::tune"));
  CHECK(y(0, 0) == 7);
}
