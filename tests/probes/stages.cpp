// SPDX-License-Identifier: MIT
#include <hmoe/probes/stages.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include "support/allocation_count.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>

using namespace hmoe::probes;

TEST_CASE("totals are those of the recorded events, of each stage and of each expert") {
  stages probe(4);
  const auto found = hmoe::testing::check_probe(probe);
  CHECK_MESSAGE(found.ok(), found.text());
  hmoe::testing::recording_probe recorded; // sees the same passes
  CHECK(hmoe::testing::check_probe(recorded).ok());
  for (const direction d : {direction::forward, direction::backward})
    for (std::size_t i = 0; i < stage_count; ++i) {
      const auto s = static_cast<stage>(i);
      CHECK(probe.total(s, d).rows == recorded.sum(s, d).rows);
      CHECK(probe.total(s, d).flops == doctest::Approx(recorded.sum(s, d).flops));
      CHECK(probe.total(s, d).bytes == doctest::Approx(recorded.sum(s, d).bytes));
      for (std::size_t e = 0; e < 4; ++e)
        CHECK(probe.total(s, d, e).flops == doctest::Approx(recorded.sum(s, d, e).flops));
    }
  CHECK(support::error_of([&] { static_cast<void>(probe.total(stage::down, direction::forward, 4)); }) ==
        "hmoe: probes::stages has totals of 4 experts, asked is expert 4");
  probe.reset();
  CHECK(probe.total(stage::pass, direction::forward).calls == 0);
}

TEST_CASE("time counts once: a stage has it without the stages inside") {
  stages probe(1);
  probe.prepare(2);
  const event outer(stage::pass, direction::forward, 1, 0, 0, no_expert, 1),
      inner(stage::down, direction::forward, 1, 0, 0, 7, 1);
  probe.begin(outer);
  probe.begin(inner);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  probe.end(inner);
  probe.end(outer);
  const double inside = probe.total(stage::down, direction::forward).seconds;
  CHECK(inside >= 0.02);
  CHECK(probe.total(stage::pass, direction::forward).seconds < inside);
  CHECK(probe.total(stage::down, direction::forward, 0).calls == 0); // expert 7 has no totals of its own
}

TEST_CASE("the table has a line for each stage and expert that had an event") {
  stages probe(3);
  probe.prepare(1);
  const event e(stage::gate_up, direction::forward, 12, 3e6, 5e6, 2);
  probe.begin(e);
  probe.end(e);
  const std::string table = probe.table();
  for (const char* words : {"forward", "gate/up", "expert 2", " 12 ", "3.00"})
    CHECK_MESSAGE(table.find(words) != std::string::npos, words << " is not in\n" << table);
  for (const char* words : {"expert 1", "combine"})
    CHECK_MESSAGE(table.find(words) == std::string::npos, words << " is in\n" << table);
}

TEST_CASE("a pass with a probe allocates as little as one without") {
  using namespace hmoe;
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(8, std::vector<std::size_t>{3, 9, 5})},
                  routing::top_k_router<float>{8, 3, 2}};
  layer.initialize(seed{1});
  const context ctx{backends::reference{}, executors::serial{}, stages{3}};
  constexpr std::size_t tokens = 150;
  const matrix<float> x(tokens, 8);
  matrix<float> y(tokens, 8), dx(tokens, 8);
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  const auto step = [&] {
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, y, dx, gradients);
  };
  step(); // the workspace grows
  CHECK(support::allocations_in(step) == 0);
  CHECK(ctx.probe().total(stage::pass, direction::backward).calls == 2);
}
