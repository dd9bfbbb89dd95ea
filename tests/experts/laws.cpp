// SPDX-License-Identifier: MIT
// The laws on every kind of expert, width 1 included.
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/any_expert.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/testing/expert_laws.hpp>

#include "experts/diagonal_expert.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace experts = hmoe::experts;

namespace {
constexpr std::size_t d = 4;
const std::vector<std::size_t> widths{1, 3, 2};

void check(const auto& expert) { CHECK(hmoe::testing::check_expert(expert).text() == ""); }
// The gate that docs/experts.md writes.
struct squared_gate { // a = g² u
  template <class T> static T value(T g, T u) { return g * g * u; }
  template <class T> static void backward(T g, T u, T da, T& dg, T& du) {
    dg = 2 * da * g * u;
    du = da * g * g;
  }
};
template <class Activation> void check_activation() {
  check(experts::glu_bank<double, Activation>(d, widths));
  check(experts::glu_bank<double, Activation>(d, widths, experts::biases::all));
  check(experts::mlp_bank<double, Activation>(d, widths));
  check(experts::mlp_bank<double, Activation>(d, widths, experts::biases::all));
}
} // namespace

TEST_CASE("glu and mlp with every activation") {
  check_activation<experts::silu>();
  check_activation<experts::gelu>();
  check_activation<experts::gelu_tanh>();
  check_activation<experts::relu>();
  check_activation<experts::squared_relu>();
  check_activation<experts::linear>();
  check(experts::glu_bank<float, experts::silu>(d, widths));
  check(experts::mlp_bank<float, experts::gelu>(d, widths));
}

TEST_CASE("the other kinds") {
  check(experts::glu_bank<double, squared_gate>(d, widths));
  check(experts::glu_bank<float, squared_gate>(d, widths));
  check(experts::gpt_oss_glu_bank<double>(d, widths));
  check(experts::gpt_oss_glu_bank<float>(d, widths));
  check(experts::low_rank_bank<double>(d, widths));
  check(experts::low_rank_bank<float>(d, widths));
  check(experts::constant_bank<double>(d, 3));
  check(experts::constant_bank<float>(d));
  check(experts::identity_bank<double>(d, 3));
  check(experts::identity_bank<float>(1));
  check(experts::zero_bank<double>(d, 3));
  check(experts::zero_bank<float>(1));
}

TEST_CASE("experts behind any_expert, and several kinds in one set") {
  check(experts::any_expert<double>{bank_checks::diagonal_expert<double>(d)});
  check(experts::any_expert<float>{bank_checks::diagonal_expert<float>(1)});
  check(hmoe::expert_set(experts::glu_bank<double, experts::silu>(d, widths), experts::zero_bank<double>(d),
                         experts::constant_bank<double>(d, 2), experts::identity_bank<double>(d)));
}
