// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/tune.hpp>

#include "dispatch/strategies.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

using namespace hmoe::dispatch;

TEST_CASE("a tuned table is one that automatic runs by, and tuning changes nothing in the layer") {
  const hmoe::routing::top_k_router<float> router(10, 6, 2);
  const auto layer = support::make_layer<float>(sorted{}, router);
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{2}};
  const auto before = support::run_passes(layer, ctx, 5);
  const tuned_table table = tune(layer, ctx, {.tokens = {1, 5, 70}, .seconds = 0.001, .cpu = "some"});
  CHECK(table.cpu == "some");
  CHECK(table.shape == shape_of(ctx, layer.experts()));
  CHECK(table.choices.size() == 3);
  CHECK(table.choices[2].tokens == 70);
  const auto by_table = support::make_layer<float>(automatic{table}, router);
  const auto after = support::run_passes(layer, ctx, 5), tuned = support::run_passes(by_table, ctx, 5);
  CHECK(support::same_bits(after.y, before.y));
  CHECK(support::same_bits(after.gradients, before.gradients));
  CHECK(support::same_bits(tuned.inferred, before.y));
  CHECK(support::same_bits(tuned.gradients, before.gradients));
}

TEST_CASE("numbers of tokens that do not ascend are refused") {
  const auto layer = support::make_layer<float>(sorted{}, hmoe::routing::top_k_router<float>(10, 6, 2));
  CHECK(support::error_of([&] {
          static_cast<void>(tune(layer, hmoe::context{hmoe::backends::reference{}}, {.tokens = {4, 2}}));
        }) == "hmoe: a tuned table has 2 tokens in line 1, which do not ascend from 1");
}
