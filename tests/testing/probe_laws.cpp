// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include <doctest/doctest.h>

#include <cfenv>

namespace {

using hmoe::probes::direction;
using hmoe::probes::event;
using hmoe::probes::stage;

/// Rounds all results that come after its first event upwards.
struct rounding {
  static void begin(const event&) noexcept { std::fesetround(FE_UPWARD); }
  static void end(const event&) noexcept {}
};

/// A dispatch that reports a stage that never ends before its pass does, and FLOPs that nobody computes.
struct boastful : hmoe::dispatch::sorted<> {
  template <class Context, class Experts>
  void forward(const Context& ctx, const Experts& experts, hmoe::matrix_view<const float> x, hmoe::matrix_view<float> y,
               hmoe::tape<float>& tape) const {
    if constexpr (hmoe::probes::observed<Context>) {
      hmoe::probes::watch<Context> watched;
      watched.begin(ctx, {stage::down, direction::forward, 3, 0, 1e6, 2});
      ctx.probe().begin({stage::gather, direction::forward});
      hmoe::dispatch::sorted<>::forward(ctx, experts, x, y, tape);
    }
  }
};

template <class Dispatch> auto layer_with(Dispatch dispatch) {
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>(5, {3, 1, 4}),
                                         hmoe::experts::mlp_bank<float, hmoe::experts::relu>(5, {2})},
                        hmoe::routing::top_k_router<float>{5, 4, 2}, dispatch};
  layer.initialize(hmoe::seed{7});
  return layer;
}

} // namespace

TEST_CASE("what a recording probe keeps") {
  hmoe::testing::recording_probe probe;
  probe.prepare(2);
  const event a(stage::gate_up, direction::forward, 3, 10, 100, 1, 0),
      b(stage::gate_up, direction::forward, 4, 1, 7, 2, 1);
  probe.begin(a);
  probe.begin(b);
  probe.end(a);
  probe.end(b);
  CHECK(probe.sum(stage::gate_up, direction::forward).rows == 7);
  CHECK(probe.sum(stage::gate_up, direction::forward).bytes == 11);
  CHECK(probe.sum(stage::gate_up, direction::forward, 2).flops == 7);
  CHECK(probe.sum(stage::gate_up, direction::backward).rows == 0);
  CHECK(probe.expert_flops(direction::forward) == 107);
  CHECK(probe.calls()[0].size() == 2);
  CHECK(probe.calls()[1][1].order == 3);
}

TEST_CASE("a probe that disturbs the passes is found") {
  rounding probe;
  const auto found = hmoe::testing::check_probe(probe);
  std::fesetround(FE_TONEAREST);
  CHECK_MESSAGE(found.mentions("results have the same bits with and without the probe"), found.text());
  hmoe::testing::recording_probe sound;
  const auto fine = hmoe::testing::check_probe(sound);
  CHECK_MESSAGE(fine.ok(), fine.text());
  CHECK(sound.sum(stage::pass, direction::forward).rows == 2 * 150); // it came back with what it saw
}

TEST_CASE("events that do not nest or do not add up are found") {
  const hmoe::backends::reference math;
  CHECK(hmoe::testing::check_stages(layer_with(hmoe::dispatch::sorted{}), math, hmoe::executors::serial{}).ok());
  const auto found = hmoe::testing::check_stages(layer_with(boastful{}), math, hmoe::executors::serial{});
  for (const char* law : {"for a worker, what begins last ends first", "an expert's FLOPs add up",
                          "an expert's rows add up", "the experts' FLOPs add up"})
    CHECK_MESSAGE(found.mentions(law), law << " is not in " << found.text());
  // dense computes every expert for every token: that is more than cost() says of the assignment.
  const auto dense = hmoe::testing::check_stages(layer_with(hmoe::dispatch::dense{}), math, hmoe::executors::serial{});
  CHECK_MESSAGE(dense.mentions("an expert's FLOPs add up"), dense.text());
  CHECK(!dense.mentions("ends first"));
}
