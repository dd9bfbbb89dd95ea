// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/backends/simd/quantized_formats.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/mlp.hpp>

#include "backends/simd/packed_layers.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

using hmoe::backends::simd_detail::byte_product;
using namespace hmoe;
using namespace support::packed_layers;

namespace {
/// The bank with each weight as Block stores it, blocks along each row.
template <class Block, class Bank> Bank quantized(Bank bank) {
  bank.visit_parameters([](const parameter_info& info, matrix_view<float> view) {
    for (std::size_t r = 0; r < view.rows() && info.decay; ++r)
      for (std::size_t k = 0; k < view.cols(); k += quantized_block_size) {
        float values[quantized_block_size] = {};
        const std::size_t count = std::min(quantized_block_size, view.cols() - k);
        std::copy_n(view.row(r).data() + k, count, values);
        const Block block = Block::quantize(values);
        for (std::size_t i = 0; i < count; ++i)
          view(r, k + i) = block.value(i);
      }
  });
  return bank;
}
} // namespace

TEST_CASE_TEMPLATE("quantised weights are those of the blocks; what is left is the rounding of activations to bytes",
                   Block, q8_block, q4_block, q4_offset_block, mxfp4_block) {
  // A step of 1/127 of the largest of 32 is 1/√12 of that off in the mean, twice (x and the hidden values).
  const auto check = [](const auto& bank) {
    const auto plain = run(packed_layer<formats::quantized<Block, byte_product::plain>>(bank), tokens);
    CHECK(relative_error(plain, run(layer_of(expert_set{quantized<Block>(bank)}), tokens)) < 0.012);
    return plain;
  };
  check(glu);
  check(glu_with_biases);
  const auto plain = check(mlp);
  // The integer products are exact, so all ways to them give the same bits.
  const auto with = [&]<byte_product Product>(std::integral_constant<byte_product, Product>) {
    return run(packed_layer<formats::quantized<Block, Product>>(mlp), tokens);
  };
  check_same_bits(with(std::integral_constant<byte_product, byte_product::pairs>{}), plain);
  check_same_bits(with(std::integral_constant<byte_product, HMOE_DETAIL_WIDE_PRODUCT>{}), plain);
  if constexpr (Block::bits == 4 && !std::is_same_v<Block, mxfp4_block>)
    check_same_bits(with(std::integral_constant<byte_product, HMOE_DETAIL_NARROW_PRODUCT>{}), plain);
}

TEST_CASE_TEMPLATE("products of the largest codes and activations are exact in 16-bit sums, too", Block, q8_block,
                   q4_block, q4_offset_block, mxfp4_block) {
  // Tokens whose values are all the same reach both ends of the range: 32 times ±127 times the largest code.
  experts::mlp_bank<float, experts::gelu_tanh> bank(64, {40});
  for (const float sign : {1.0F, -1.0F}) {
    std::size_t i = 0;
    bank.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
      for (float& weight : vector_view<float>(view.data(), view.size()))
        weight = sign * (i++ % 37 == 36 ? -7.0F : 7.0F); // least and greatest are there
    });
    const auto with = [&]<byte_product Product>(std::integral_constant<byte_product, Product>) {
      const auto packed = simd<>::pack<formats::quantized<Block, Product>>(bank);
      const context ctx{simd<>{}, executors::openmp{1}};
      matrix<float> x(7, 64), y(7, 64);
      for (std::size_t r = 0; r < x.rows(); ++r)
        std::ranges::fill(x.row(r), r % 2 == 0 ? -3.0F : 3.0F);
      const expert_rows<float> group{0, 7, x.view(), y.view()};
      const workspace::scope scope(ctx.workspace());
      packed.forward_rows(ctx, {&group, 1});
      return y;
    };
    const auto plain = with(std::integral_constant<byte_product, byte_product::plain>{});
    check_same_bits(with(std::integral_constant<byte_product, HMOE_DETAIL_WIDE_PRODUCT>{}), plain);
    check_same_bits(with(std::integral_constant<byte_product, byte_product::pairs>{}), plain);
    if constexpr (Block::bits == 4 && !std::is_same_v<Block, mxfp4_block>)
      check_same_bits(with(std::integral_constant<byte_product, HMOE_DETAIL_NARROW_PRODUCT>{}), plain);
  }
}

TEST_CASE("an activation that is not finite gives NaN with quantised weights, in its own token only") {
  const auto packed = simd<>::pack<formats::q4>(glu);
  const context ctx{simd<>{}, executors::openmp{1}};
  matrix<float> x = tokens, y(300, d), expected(300, d);
  const auto forward = [&](const matrix<float>& in, matrix<float>& out) {
    const expert_rows<float> group{3, 300, in.view(), out.view()};
    const workspace::scope scope(ctx.workspace());
    packed.forward_rows(ctx, {&group, 1});
  };
  forward(x, expected);
  x(17, 3) = std::numeric_limits<float>::quiet_NaN();
  x(18, 36) = -std::numeric_limits<float>::infinity();
  forward(x, y);
  for (std::size_t t = 0; t < 300; ++t)
    for (std::size_t i = 0; i < d; ++i)
      if (t == 17 || t == 18)
        CHECK(std::isnan(y(t, i)));
      else
        CHECK(y(t, i) == expected(t, i));
}
