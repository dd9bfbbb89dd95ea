// SPDX-License-Identifier: MIT
// What workspace_bytes announces for banks that backends::simd computes at once, as in
// tests/layer/moe_layer_announced_memory.cpp.
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/identity.hpp>

#include "backends/simd/ffn_batches.hpp"
#include "layer/announced_memory.hpp"

#include <doctest/doctest.h>

using namespace hmoe;

TEST_CASE("announced memory of whole banks is enough and at most a quarter too much") {
  constexpr std::size_t d = 24;
  const experts::glu_bank<float, experts::silu> glu(d, {0, 2, 9, 120, 170});
  const experts::mlp_bank<float, experts::gelu_tanh> mlp(d, {130, 5});
  const expert_set experts{glu, mlp};
  announced::check(support::whole_banks{}, experts, dispatch::sorted{});
  announced::check(support::whole_banks{}, experts, dispatch::scattered{});
  using backends::simd;
  announced::check(simd<>{}, simd<>::pack(experts), dispatch::scattered{});
  const expert_set mixed{glu, experts::identity_bank<float>(d, 1), mlp};
  announced::check(simd<>{}, simd<>::pack<backends::formats::q8>(mixed), dispatch::looped{});
}
