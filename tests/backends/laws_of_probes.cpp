// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include <doctest/doctest.h>

using hmoe::probes::direction;
using hmoe::probes::stage;

namespace {

using simd = hmoe::backends::simd<>;

/// Large enough that the backend takes both banks.
template <class Dispatch> auto wide_layer(Dispatch dispatch) {
  constexpr std::size_t d = 264;
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::expert_ids{{{0, 2, 4}, {1, 3}}},
                                         hmoe::experts::glu_bank<float, hmoe::experts::silu>(d, {130, 61, 250}),
                                         hmoe::experts::mlp_bank<float, hmoe::experts::relu>(d, {160, 129})},
                        hmoe::routing::top_k_router<float>{d, 5, 2}, dispatch};
  layer.initialize(hmoe::seed{3});
  return layer;
}

template <class Layer> void check(const Layer& layer) {
  for (const std::size_t tokens : {1U, 37U, 900U}) {
    const auto found = hmoe::testing::check_stages(layer, simd{}, hmoe::testing::reversed_threads(3), tokens);
    CHECK_MESSAGE(found.ok(), tokens << " tokens: " << found.text());
  }
}

} // namespace

TEST_CASE_TEMPLATE("stages nest and add up to cost() however the work of a bank is cut", Dispatch,
                   hmoe::dispatch::sorted<>, hmoe::dispatch::scattered) {
  const auto layer = wide_layer(Dispatch{});
  check(layer);
  check(simd::pack(layer));
}

TEST_CASE("packed weights: activations are part of gate/up, and scattered sums of down") {
  const auto layer = simd::pack<hmoe::backends::formats::bf16>(wide_layer(hmoe::dispatch::scattered{}));
  const hmoe::context ctx{simd{}, hmoe::executors::serial{}, hmoe::testing::recording_probe{}};
  constexpr std::size_t tokens = 1; // so that rows are few bytes beside the weights
  const hmoe::matrix<float> x(tokens, layer.d_model());
  hmoe::matrix<float> y(tokens, layer.d_model());
  layer.forward(ctx, x.view(), y.view());
  const auto rows = [&](stage s) { return ctx.probe().sum(s, direction::forward).rows; };
  CHECK(rows(stage::gather) == 2 * tokens);
  CHECK(rows(stage::gate_up) == 2 * tokens);
  CHECK(rows(stage::down) == 2 * tokens);
  CHECK(rows(stage::activation) == 0);
  CHECK(rows(stage::combine) == 0);
  // Bytes: those of the bf16 weights, and a little for rows.
  const auto cost = layer.cost();
  std::size_t used = 0;
  for (const std::size_t e : {0U, 1U}) // zeros: ties go to the lowest ids
    used += cost.experts[e].bytes;
  const double bytes = ctx.probe().sum(stage::gate_up, direction::forward).bytes +
                       ctx.probe().sum(stage::down, direction::forward).bytes;
  CHECK(bytes > static_cast<double>(used));
  CHECK(bytes < 1.25 * static_cast<double>(used));
}
