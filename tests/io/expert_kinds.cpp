// SPDX-License-Identifier: MIT
#include <hmoe/io/expert_kinds.hpp>

#include "support/ragged_layer.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace experts = hmoe::experts;

namespace {
struct doubling {
  static constexpr const char* name = "doubling";
  template <class T> static T value(T z) { return 2 * z; }
  template <class T> static T derivative(T) { return 2; }
};
struct with_kind {
  static constexpr const char* kind = "sine";
};
struct without_kind {};
} // namespace

TEST_CASE("the words for the shipped kinds and for those of users") {
  const auto name = []<class Bank>() { return hmoe::io::expert_kind<Bank>::name(); };
  CHECK(name.operator()<experts::glu_bank<float, experts::silu>>() == "glu.silu");
  CHECK(name.operator()<experts::glu_bank<double, experts::gelu>>() == "glu.gelu");
  CHECK(name.operator()<experts::gpt_oss_glu_bank<float>>() == "glu.gpt_oss");
  CHECK(name.operator()<experts::mlp_bank<float, experts::gelu_tanh>>() == "mlp.gelu_tanh");
  CHECK(name.operator()<experts::mlp_bank<float, experts::relu>>() == "mlp.relu");
  CHECK(name.operator()<experts::mlp_bank<float, experts::squared_relu>>() == "mlp.squared_relu");
  CHECK(name.operator()<experts::mlp_bank<float, experts::linear>>() == "mlp.linear");
  CHECK(name.operator()<experts::mlp_bank<float, doubling>>() == "mlp.doubling");
  CHECK(name.operator()<experts::low_rank_bank<float>>() == "low_rank");
  CHECK(name.operator()<experts::zero_bank<float>>() == "zero");
  CHECK(name.operator()<with_kind>() == "sine");
  CHECK(name.operator()<without_kind>() == "custom");
}

TEST_CASE("kinds by id; a feed-forward expert of width 0 is a vector") {
  CHECK(hmoe::io::kinds_of(support::make_ragged_layer<float>().experts()) ==
        std::vector<std::string>{"glu.silu", "vector", "glu.silu", "constant", "vector", "vector", "identity"});
}
