// SPDX-License-Identifier: MIT
#include <hmoe/routing/controllers/bias_load.hpp>
#include <hmoe/routing/controllers/top_p_controller.hpp>
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/controllers/update_bias_in_proportion.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;
using support::error_of;

TEST_CASE("load in tokens and in FLOPs adds up over calls") {
  const std::vector<index_t> counts{4, 0, 1};
  const std::vector<double> flops{1, 5, 10};
  std::vector<double> tokens(3), work(3);
  for (int i = 0; i < 2; ++i) {
    routing::load_in_tokens(counts, tokens);
    routing::load_in_flops(counts, flops, work);
  }
  CHECK(tokens == std::vector<double>{8, 0, 2});
  CHECK(work == std::vector<double>{8, 0, 20});
  CHECK(error_of([&] { routing::load_in_flops(counts, std::vector<double>(2), work); }) ==
        "hmoe: a load of 3 experts for counts of 3 and costs of 2");
  CHECK(error_of([&] { routing::load_in_tokens(std::vector<index_t>(2), tokens); }) ==
        "hmoe: a load of 3 experts for counts of 2");
}

TEST_CASE("the sign rule moves each bias by the rate, toward the mean load") {
  std::vector<double> bias{0, 1, 2, 3};
  const std::vector<double> load{10, 2, 6, 6}; // mean 6
  routing::update_bias_by_sign<double>(bias, load, 0.5);
  CHECK(bias == std::vector<double>{-0.5, 1.5, 2, 3});
  routing::update_bias_by_sign<double>(bias, load, 0.5, 2); // mean of the first two: 6
  CHECK(bias == std::vector<double>{-1, 2, 2, 3});
  CHECK(error_of([&] { routing::update_bias_by_sign<double>(bias, std::vector<double>(3), 0.5); }) ==
        "hmoe: a load of 3 experts for a bias of 4");
  CHECK(error_of([&] { routing::update_bias_by_sign<double>(bias, load, 0.5, 5); }) ==
        "hmoe: the bias of 5 of 4 experts should move");
  CHECK(error_of([&] { routing::update_bias_by_sign<double>(bias, load, std::nan("")); }) ==
        "hmoe: a selection bias cannot move at a rate of nan: it must be finite");
  CHECK(bias == std::vector<double>{-1, 2, 2, 3});
}

TEST_CASE("the proportional rule moves by rate (share - load / sum), and leaves zero-cost experts alone") {
  // Two FFN experts and two zero-cost ones, 3 experts a token, of which 2 should be FFN experts: share 2 / (3 · 2).
  std::vector<double> bias{0, 1, 2, 3};
  const std::vector<double> load{10, 2, 12, 6};
  routing::update_bias_in_proportion<double>(bias, load, 0.1, 2.0 / 6, 2);
  CHECK(bias[0] == doctest::Approx(0.1 * (1.0 / 3 - 10.0 / 30)));
  CHECK(bias[1] == doctest::Approx(1 + 0.1 * (1.0 / 3 - 2.0 / 30)));
  CHECK(bias[2] == 2);
  CHECK(bias[3] == 3);
  const auto before = bias;
  routing::update_bias_in_proportion<double>(bias, std::vector<double>(4), 0.1, 0.25);
  CHECK(bias == before);
}

TEST_CASE("either rule balances a skewed router, in tokens or in FLOPs") {
  support::random_source random(1);
  const std::size_t experts = 6;
  for (const bool in_flops : {false, true})
    for (const bool by_sign : {false, true}) {
      routing::biased<double, routing::top_k<>> select(experts, {2});
      std::vector<double> flops(experts, 1.0);
      if (in_flops)
        flops = {1, 1, 2, 2, 3, 3};
      std::vector<double> load(experts);
      for (int step = 0; step < 400; ++step) {
        std::vector<index_t> counts(experts), chosen(experts);
        for (int t = 0; t < 200; ++t) {
          std::vector<double> p(experts), scratch(experts);
          for (std::size_t e = 0; e < experts; ++e)
            p[e] = random.real(0, 1) + 0.3 * static_cast<double>(e); // the last ones are far ahead
          select(vector_view<const double>(p), chosen, scratch);
          ++counts[chosen[0]];
          ++counts[chosen[1]];
        }
        std::fill(load.begin(), load.end(), 0.0);
        routing::load_in_flops(counts, flops, load);
        if (by_sign)
          routing::update_bias_by_sign<double>(select.bias(), load, 0.01);
        else
          routing::update_bias_in_proportion<double>(select.bias(), load, 1, 1.0 / experts);
      }
      double sum = 0;
      for (const double value : load)
        sum += value;
      for (std::size_t e = 0; e < experts; ++e) {
        INFO("expert ", e, " in_flops ", in_flops, " by_sign ", by_sign);
        CHECK(load[e] / sum * experts == doctest::Approx(1).epsilon(0.35));
      }
    }
}

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
  trace.resize(0, 3, 0, false);
  CHECK(controller.update(trace) == settled);
  CHECK(error_of([] { routing::top_p_controller({.target = 0}); }) ==
        "hmoe: top_p_controller with target = 0: it must be finite and above 0");
  CHECK(error_of([] { routing::top_p_controller({.start = 0.5, .lowest = 0.6}); }) ==
        "hmoe: top_p_controller with lowest = 0.6, start = 0.5, highest = 1: they must ascend within (0, 1]");
}
