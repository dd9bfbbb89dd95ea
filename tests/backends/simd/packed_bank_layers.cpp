// SPDX-License-Identifier: MIT
// Packed banks in layers: the same at every instruction-set level.
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "backends/simd/packed_experts.hpp"
#include "backends/simd/packed_layers.hpp"
#include "support/allocation_count.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace hmoe;
using namespace support::packed_layers;

TEST_CASE("weights on the input, and packed beside other kinds") {
  const auto mixed = [&](auto bank, auto dispatch) {
    return layer_of(expert_set{experts::identity_bank<float>(d), std::move(bank), experts::identity_bank<float>(d)},
                    dispatch, routing::top_k_router<float>{d, 8, 3});
  };
  const auto expected = run(mixed(glu, dispatch::sorted{}), tokens);
  check_same_bits(run(mixed(simd<>::pack(glu), dispatch::scattered{}), tokens, 2), expected);
  check_same_bits(run(mixed(simd<>::pack(glu), dispatch::sorted{}), tokens, 2), expected);
  // The whole set at once leaves kinds alone that have no such form.
  const auto layer = mixed(glu, dispatch::sorted{});
  const moe_layer whole{simd<>::pack(layer.experts()), layer.router(), dispatch::scattered{}};
  check_same_bits(run(whole, tokens), expected);

  using input_weighted =
      routing::router<routing::linear<float>, routing::top_k<>, routing::on_input_side<routing::raw>>;
  const auto on_input = [&](auto bank, auto dispatch) {
    return layer_of(expert_set{std::move(bank)}, dispatch, input_weighted{d, 6, 2});
  };
  check_same_bits(run(on_input(simd<>::pack(glu), dispatch::scattered{}), tokens),
                  run(on_input(glu, dispatch::sorted{}), tokens));
}

TEST_CASE("weights are held once, and their memory is as stated") {
  const experts::glu_bank<float, experts::silu> bank(128, {128, 256});
  const auto per_weight = [&](const auto& packed, std::size_t e) {
    return static_cast<double>(packed.bytes(e)) / static_cast<double>(packed.parameter_count(e));
  };
  for (const std::size_t e : {0U, 1U}) {
    CHECK(per_weight(simd<>::pack(bank), e) == 4);
    CHECK(per_weight(simd<>::pack<formats::f16>(bank), e) == 2);
    CHECK(per_weight(simd<>::pack<formats::bf16>(bank), e) == 2);
    CHECK(per_weight(simd<>::pack<formats::q8>(bank), e) == 8.5 / 8);
    CHECK(per_weight(simd<>::pack<formats::q4>(bank), e) == 4.5 / 8);
    CHECK(per_weight(simd<>::pack<formats::q4_offset>(bank), e) == 5.0 / 8);
    CHECK(per_weight(simd<>::pack<formats::mxfp4>(bank), e) <= 4.5 / 8); // 4.25 bits; a byte of scale a block
  }
  const moe_layer layer{expert_set{simd<>::pack<formats::bf16>(bank)}, routing::top_k_router<float>{128, 2, 1}};
  CHECK(layer.cost().experts[1].bytes == 2 * 3 * 128 * 256);
  CHECK(layer.cost().experts[1].parameters == 3 * 128 * 256);
  CHECK(simd<>::pack(glu).bytes(0) > 3 * d * sizeof(float)); // ragged ones pay for whole panels
}

TEST_CASE("the announced workspace suffices and nothing else is allocated") {
  const auto check = [](const auto& layer) {
    for (const std::size_t count : {300U, 1U, 17U, 0U}) {
      workspace memory;
      const context ctx{simd<>{}, executors::serial{}, memory};
      memory.reserve(layer.workspace_bytes(ctx, count));
      matrix<float> y(count, d);
      const auto x = tokens.view().row_block(0, count);
      CAPTURE(count);
      CHECK(support::allocations_in([&] { layer.forward(ctx, x, y); }) == 0);
      CHECK(memory.peak() <= layer.workspace_bytes(ctx, count));
    }
  };
  check(layer_of(expert_set{simd<>::pack(glu)}, dispatch::scattered{}));
  check(layer_of(expert_set{simd<>::pack<formats::bf16>(glu_with_biases)}, dispatch::sorted{}));
  check(layer_of(expert_set{simd<>::pack(glu), mlp}, dispatch::scattered{}, routing::top_k_router<float>{d, 12, 4}));
  check(layer_of(expert_set{simd<>::pack(glu), mlp}, dispatch::looped{}, routing::top_k_router<float>{d, 12, 4}));
}

TEST_CASE("packing a layer keeps its router and dispatch and packs its experts") {
  auto layer = layer_of(expert_set{glu, experts::identity_bank<float>(d, 1)}, dispatch::scattered{},
                        routing::top_k_router<float>{d, 7, 2});
  const auto packed = simd<>::pack<formats::bf16>(layer);
  static_assert(decltype(layer)::trainable && !decltype(packed)::trainable);
  static_assert(std::same_as<decltype(packed)::dispatch_type, dispatch::scattered>);
  const auto ours = run(packed, tokens.view());
  const auto expected = run(
      moe_layer{simd<>::pack<formats::bf16>(layer.experts()), layer.router(), dispatch::scattered{}}, tokens.view());
  CHECK(std::memcmp(ours.data(), expected.data(), ours.size() * sizeof(float)) == 0);
}

TEST_CASE("a class derived from a bank is packed, and computed at once, as the bank") {
  struct named_bank : experts::glu_bank<float, experts::silu> {
    using glu_bank::glu_bank;
    const char* name = "mine";
  };
  const named_bank bank = random_bank(named_bank(d, ragged));
  const auto ours = run(layer_of(simd<>::pack(expert_set{bank})), tokens.view());
  const auto base =
      run(layer_of(simd<>::pack(expert_set{experts::glu_bank<float, experts::silu>(bank)})), tokens.view());
  CHECK(std::memcmp(ours.data(), base.data(), base.size() * sizeof(float)) == 0);

  using experts::runner;
  const context ctx{simd<>{}};
  const expert_set wide{named_bank(512, {200, 300}), experts::gpt_oss_glu_bank<float>(512, {400}),
                        experts::identity_bank<float>(512, 1)};
  CHECK(wide.runner_of(ctx, 0) == runner::backend);
  CHECK(wide.runner_of(ctx, 2) == runner::backend);
  CHECK(wide.runner_of(ctx, 3) == runner::tiles);
  CHECK(simd<>::pack(wide).runner_of(ctx, 0) == experts::runner::bank);
}

namespace {
/// Computes something else than its base: twice the result.
struct doubled_bank : experts::glu_bank<float, experts::silu> {
  using glu_bank::glu_bank;
  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const float> x, matrix_view<float> y,
               matrix_view<float> saved) const {
    glu_bank::forward(math, e, x, y, saved);
    for (std::size_t r = 0; r < y.rows(); ++r)
      for (float& value : y.row(r))
        value *= 2;
  }
};
} // namespace

TEST_CASE("a derived bank with a forward of its own is run by it, and not packed in a set") {
  const context ctx{simd<>{}};
  const doubled_bank wide(512, {200, 300});
  CHECK(expert_set{wide}.runner_of(ctx, 0) == experts::runner::tiles);
  const doubled_bank bank = random_bank(doubled_bank(d, ragged));
  const auto twice = run(layer_of(simd<>::pack(expert_set{bank})), tokens.view());
  const auto once = run(layer_of(expert_set{experts::glu_bank<float, experts::silu>(bank)}), tokens.view());
  for (std::size_t i = 0; i < once.size(); ++i)
    CHECK(twice.data()[i] == doctest::Approx(2 * once.data()[i]));
}

TEST_CASE("copies of a row that scatters: the bank's own, the backend's, and those of rows that are gathered first") {
  const experts::glu_bank<float, experts::silu> wide(256, {128, 256}), narrow(2, {1, 1});
  const expert_set plain{wide};
  const expert_set mixed{wide, experts::identity_bank<float>{256, 1}};
  const context fast{simd<>{}, executors::serial{}};
  const context loops{backends::reference{}, executors::serial{}};
  CHECK(simd<>::pack<formats::bf16>(plain).scatter_copies(fast) == 2);
  CHECK(plain.scatter_copies(fast) == 4);
  CHECK(mixed.scatter_copies(fast) == 6);
  CHECK(plain.scatter_copies(loops) == 6);
  CHECK(expert_set{narrow}.scatter_copies(fast) == 6); // not worth packing
}
