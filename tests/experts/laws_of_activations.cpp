// SPDX-License-Identifier: MIT
// The laws on every activation and gate.
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/testing/activation_laws.hpp>
#include <hmoe/testing/gate_laws.hpp>

#include <doctest/doctest.h>

#include <limits>

namespace experts = hmoe::experts;

TEST_CASE_TEMPLATE("activations, and the gates that they make", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu, experts::linear) {
  CHECK(hmoe::testing::check_activation<Activation>().text() == "");
  CHECK(hmoe::testing::check_gate(experts::gated<Activation>{}).text() == "");
}

TEST_CASE("the gate of gpt-oss, clamped and not") {
  CHECK(hmoe::testing::check_gate(experts::gpt_oss_gate{}).text() == "");
  CHECK(hmoe::testing::check_gate(experts::gpt_oss_gate{}, {.scale = 12}).text() == "");
  CHECK(hmoe::testing::check_gate(experts::gpt_oss_gate{1.5, 0.9}).text() == "");
  CHECK(hmoe::testing::check_gate(experts::gpt_oss_gate{std::numeric_limits<double>::infinity(), 1}).text() == "");
}

TEST_CASE("clamped gates, clamping and not") {
  CHECK(hmoe::testing::check_gate(experts::clamped<experts::silu>{7}, {.scale = 12}).text() == "");
  CHECK(hmoe::testing::check_gate(experts::clamped<experts::gelu_tanh>{1.5}).text() == "");
  CHECK(hmoe::testing::check_gate(experts::clamped<experts::silu>{std::numeric_limits<double>::infinity()}).text() ==
        "");
}
