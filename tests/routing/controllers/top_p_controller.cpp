// SPDX-License-Identifier: MIT
#include <hmoe/routing/controllers/top_p_controller.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;
using support::error_of;

TEST_CASE("the top-p controller reaches its target, from below and from above") {
  support::random_source random(2);
  for (const double target : {1.5, 3.0, 5.0}) {
    routing::top_p_controller controller({.target = target, .start = 0.5});
    double mean = 0;
    std::vector<index_t> chosen(8);
    for (int step = 0; step < 300; ++step) {
      const routing::top_p select(controller.p());
      std::size_t count = 0;
      for (int t = 0; t < 200; ++t) {
        std::vector<double> p(8);
        double sum = 0;
        for (double& value : p)
          sum += value = std::exp(random.real(-2, 2));
        for (double& value : p)
          value /= sum;
        count += select(vector_view<const double>(p), vector_view<index_t>(chosen));
      }
      mean = static_cast<double>(count) / 200;
      controller.update(mean);
    }
    CHECK(mean == doctest::Approx(target).epsilon(0.06));
  }
}

TEST_CASE("the controller's formula, its bounds, and no wind-up at them") {
  routing::top_p_controller controller(
      {.target = 2, .start = 0.5, .proportional = 0.1, .integral = 0.01, .lowest = 0.2, .highest = 0.9});
  CHECK(controller.update(1) == doctest::Approx(0.5 + 0.1 + 0.01));
  CHECK(controller.update(1.5) == doctest::Approx(0.5 + 0.05 + 0.015));
  for (int i = 0; i < 1000; ++i)
    CHECK(controller.update(0) <= 0.9);
  CHECK(controller.p() == 0.9);
  for (int i = 0; i < 60; ++i) // a wound-up sum would need a thousand steps
    controller.update(3);
  CHECK(controller.p() < 0.5);
  hmoe::router_trace<float> trace;
  trace.resize(4, 3, 0, false);
  trace.tokens_per_expert()[1] = 8; // two experts a token: on target, so that only the sum counts
  const double settled = controller.update(2);
  CHECK(controller.update(trace) == settled);
  // Padding is nobody's token.
  const std::vector<std::uint8_t> valid{1, 0, 1, 1, 0, 1};
  hmoe::routing_inputs<float> inputs;
  inputs.valid = {valid.data(), valid.size()};
  trace.resize(6, 3, 0, false);
  trace.set_inputs(inputs);
  trace.tokens_per_expert()[1] = 8;
  CHECK(controller.update(trace) == settled);
  trace.set_inputs({});
  trace.resize(0, 3, 0, false);
  CHECK(controller.update(trace) == settled);
  CHECK(error_of([] { routing::top_p_controller({.target = 0}); }) ==
        "hmoe: top_p_controller with target = 0: it must be finite and above 0");
  CHECK(error_of([] { routing::top_p_controller({.start = 0.5, .lowest = 0.6}); }) ==
        "hmoe: top_p_controller with lowest = 0.6, start = 0.5, highest = 1: they must ascend within (0, 1]");
}
