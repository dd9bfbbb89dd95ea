// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "backends/simd/packed_experts.hpp"
#include "backends/simd/packed_layers.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <vector>

using namespace hmoe;
using namespace support::packed_layers;

TEST_CASE_TEMPLATE("weights that a format cannot hold are refused, by expert and place", Format, formats::f32,
                   formats::f16, formats::bf16, formats::fp8, formats::q8, formats::q4, formats::q4_offset,
                   formats::mxfp4, formats::q8_channel) {
  const auto with = [](float weight) {
    auto bank = glu;
    bank.down(3)(36, 32) = weight;
    return bank;
  };
  CHECK_NOTHROW(static_cast<void>(simd<>::pack<Format>(with(-Format::largest_weight))));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(),
                          Format::largest_weight * 1.01F}) // the largest float's neighbour is infinity
    CHECK_THROWS_AS(static_cast<void>(simd<>::pack<Format>(with(bad))), hmoe::error);
  CHECK_THROWS_WITH_AS(static_cast<void>(simd<>::pack<formats::q4>(with(40000))),
                       "hmoe: expert 3: weight (36, 32) of down is 40000; this format holds finite weights up to 32768",
                       hmoe::error);
}

TEST_CASE_TEMPLATE("a token has the same bits in any batch, on any threads, by any dispatch", Format, formats::f32,
                   formats::f16, formats::bf16, formats::fp8, formats::q8, formats::q4, formats::q4_offset,
                   formats::mxfp4, formats::q8_channel) {
  const auto packed = expert_set{support::packed_experts(simd<>::pack<Format>(glu_with_biases))};
  const auto expected = run(layer_of(packed), tokens);
  for (const std::size_t threads : {1U, 2U, 3U})
    for (const std::size_t count : {1U, 3U, 64U, 300U}) {
      const auto batch = tokens.view().row_block(300 - count, count);
      const auto check = [&](const matrix<float>& y) {
        for (std::size_t t = 0; t < count; ++t)
          REQUIRE(same_bits(y.row(t), expected.row(300 - count + t)));
      };
      check(run(layer_of(packed, dispatch::sorted{}), batch, threads));
      check(run(layer_of(packed, dispatch::looped{}), batch, threads));
      check(run(layer_of(packed, dispatch::scattered{}), batch, threads));
    }
}

TEST_CASE("how the work is cut changes no bit") {
  const auto packed = simd<>::pack(glu);
  const context ctx{simd<>{}, executors::openmp{2}};
  const auto with = [&](const backends::simd_detail::work_sizes& sizes) {
    matrix<float> y(3 * tokens.rows(), d);
    std::vector<expert_rows<float>> groups; // unequal loads, one expert without rows
    groups.push_back({0, 300, tokens, y.view().row_block(0, 300)});
    groups.push_back({2, 0, tokens.view().row_block(0, 0), y.view().row_block(0, 0)});
    groups.push_back({4, 1, tokens.view().row_block(7, 1), y.view().row_block(300, 1)});
    groups.push_back({5, 299, tokens.view().row_block(1, 299), y.view().row_block(301, 299)});
    const workspace::scope scope(ctx.workspace());
    backends::simd_detail::packed_forward<decltype(packed)::experts_type>::run(ctx, packed,
                                                                               {groups.data(), groups.size()}, sizes);
    matrix<float> written(600, d);
    for (std::size_t t = 0; t < 600; ++t)
      std::ranges::copy(y.row(t), written.row(t).begin());
    return written;
  };
  const auto expected = with(backends::simd_detail::packed_work_sizes);
  check_same_bits(with({.batch_bytes = 1, .least_rows = 1, .most_rows = 1, .pieces = 1000, .least_work = 1}), expected);
  check_same_bits(with({.batch_bytes = 4096, .least_rows = 7, .most_rows = 50, .pieces = 3, .least_work = 1}),
                  expected);
}

TEST_CASE("legal edges: no tokens, one wide expert and many narrow ones, all tokens on one expert") {
  const auto packed = expert_set{simd<>::pack(glu)};
  CHECK(run(layer_of(packed, dispatch::scattered{}), tokens.view().row_block(0, 0)).rows() == 0);

  std::vector<std::size_t> widths(20, 1);
  widths.front() = 500;
  const auto bank = random_bank(experts::glu_bank<float, experts::silu>(d, widths));
  const auto plain = layer_of(expert_set{bank}, dispatch::sorted{}, routing::top_k_router<float>{d, 20, 20});
  const moe_layer fast{simd<>::pack(plain.experts()), plain.router(), dispatch::scattered{}};
  check_same_bits(run(fast, tokens, 3), run(plain, tokens));

  // One expert of width 1 on tokens of one value, and no group at all.
  const auto least = random_bank(experts::glu_bank<float, experts::silu>(1, {1}));
  const moe_layer plain_least{expert_set{least}, routing::top_k_router<float>{1, 1, 1}};
  const auto packed_least = simd<>::pack(least);
  const moe_layer fast_least{expert_set{packed_least}, plain_least.router(), dispatch::scattered{}};
  const matrix_view<const float> single = tokens.view().column_block(0, 1);
  check_same_bits(run(fast_least, single, 2), run(plain_least, single));
  packed_least.forward_rows(context{simd<>{}}, {});

  const auto one = layer_of(expert_set{bank}, dispatch::sorted{}, routing::threshold_router<float>{d, 20, 0.9F});
  const moe_layer fast_one{simd<>::pack(one.experts()), one.router(), dispatch::scattered{}};
  check_same_bits(run(fast_one, tokens, 3), run(one, tokens)); // and tokens without an expert
}

TEST_CASE_TEMPLATE("packed experts of width 0 return their bias, or nothing, beside others", Format, formats::f32,
                   formats::q8) {
  const std::vector<std::size_t> pruned{0, 16, 0, 33, 64, 0};
  for (const experts::biases bias : {experts::biases::none, experts::biases::all}) {
    const expert_set set{random_bank(experts::glu_bank<float, experts::gelu>(d, pruned, bias))};
    const auto packed = layer_of(simd<>::pack<Format>(set), dispatch::scattered{});
    const auto scattered = run(packed, tokens.view(), 3);
    const auto sorted = run(layer_of(simd<>::pack<Format>(set)), tokens.view());
    check_same_bits(scattered, sorted);
    const auto exact = run(layer_of(set), tokens.view());
    float largest = 0, difference = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      largest = std::max(largest, std::abs(exact.data()[i]));
      difference = std::max(difference, std::abs(exact.data()[i] - scattered.data()[i]));
    }
    CHECK(largest > 0);
    CHECK(difference < 0.02F * largest); // 8 bits per weight and activation
  }
}
