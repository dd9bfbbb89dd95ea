// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/backends/simd/quantized_formats.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/mlp.hpp>

#include "backends/simd/packed_layers.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

using hmoe::backends::simd_detail::byte_product;
using namespace hmoe;
using namespace support::packed_layers;

namespace {
/// The bank with each weight as Block stores it, blocks along each row.
template <class Block, class Bank> Bank quantized(Bank bank) {
  bank.visit_parameters([](const parameter_info& info, matrix_view<float> view) {
    for (std::size_t r = 0; r < view.rows() && info.decay; ++r)
      for (std::size_t k = 0; k < view.cols(); k += Block::size) {
        float values[Block::size] = {};
        const std::size_t count = std::min(Block::size, view.cols() - k);
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

namespace {
using arch = xsimd::default_arch;
constexpr std::size_t panel_columns = 2 * xsimd::batch<float, arch>::size, group_rows = 4;

/// rows · weightsᵀ by the kernel of a format, Rows at a time.
template <class Format, std::size_t Rows> std::vector<float> products(const matrix<float>& x, const matrix<float>& w) {
  const std::size_t depth = x.cols(), step = Format::row_length(depth);
  buffer<std::byte> panel(Format::template panel_bytes<arch>(depth)), rows(x.rows() * step);
  Format::template pack<arch>(depth, [&](std::size_t k, std::size_t c) { return w(c, k); }, panel.data());
  for (std::size_t r = 0; r < x.rows(); ++r)
    Format::template encode<arch>(x.row(r).data(), depth, rows.data() + r * step);
  buffer<float> tile(x.rows() * panel_columns);
  for (std::size_t r = 0; r < x.rows(); r += Rows)
    Format::template multiply<Rows, 1, arch>(depth, rows.data() + r * step, step, panel.data(), {panel.data(), 64},
                                             tile.data() + r * panel_columns);
  return {tile.begin(), tile.end()};
}
template <class Block, formats::activation_scale Scale> struct grouping {
  using block = Block;
  static constexpr formats::activation_scale scale = Scale;
  template <byte_product Product> using format = formats::quantized<Block, Product, false, Scale>;
};
double largest(const float* values, std::size_t count) {
  double most = 0;
  for (std::size_t i = 0; i < count; ++i)
    most = std::max(most, std::abs(static_cast<double>(values[i])));
  return most;
}
} // namespace

TEST_CASE_TEMPLATE("groups of weights and scales of activations: exact integers, errors within the bounds", Grouping,
                   grouping<basic_q8_block<64>, formats::activation_scale::block>,
                   grouping<basic_q8_block<128>, formats::activation_scale::row>,
                   grouping<basic_q4_block<64>, formats::activation_scale::row>,
                   grouping<basic_q4_block<128>, formats::activation_scale::block>,
                   grouping<q4_offset_block, formats::activation_scale::row>,
                   grouping<mxfp4_block, formats::activation_scale::row>) {
  using block_type = typename Grouping::block;
  constexpr byte_product quickest = HMOE_DETAIL_WIDE_PRODUCT;
  support::random_source random(41);
  for (const std::size_t depth : {31U, 128U, 200U}) {
    CAPTURE(depth);
    matrix<float> x = support::random_matrix<float>(random, group_rows, depth),
                  weights = support::random_matrix<float>(random, panel_columns, depth);
    std::fill_n(x.row(2).data(), depth, 0.0F);
    x(3, 5) = 20; // an outlier
    const auto tile = products<typename Grouping::template format<quickest>, 4>(x, weights);
    for (std::size_t r = 0; r < group_rows; ++r)
      for (std::size_t c = 0; c < panel_columns; ++c) {
        double sum = 0, exact = 0, from_x = 0, from_w = 0;
        for (std::size_t k = 0; k < depth; k += block_type::size) {
          const std::size_t count = std::min(block_type::size, depth - k);
          float values[block_type::size] = {};
          std::copy_n(weights.row(c).data() + k, count, values);
          const block_type block = block_type::quantize(values);
          const double scale =
              (Grouping::scale == formats::activation_scale::row ? largest(x.row(r).data(), depth)
                                                                 : largest(x.row(r).data() + k, count)) /
              127;
          for (std::size_t i = 0; i < count; ++i) {
            const double xi = static_cast<double>(x(r, k + i)), wi = static_cast<double>(values[i]);
            const double rounded_x = scale > 0 ? std::nearbyint(xi / scale) * scale : 0;
            sum += rounded_x * static_cast<double>(block.value(i));
            exact += xi * wi;
            from_x += scale / 2 * std::abs(wi);
            from_w += std::abs(rounded_x) *
                      (std::same_as<block_type, mxfp4_block> ? std::abs(static_cast<double>(block.value(i)) - wi)
                                                             : static_cast<double>(block.scale()) / 2);
          }
        }
        const double ours = static_cast<double>(tile[r * panel_columns + c]);
        // One rounding of a code where float and double disagree about a tie, and the float sums' own.
        CHECK(std::abs(ours - sum) <= 0.05 * from_x + 2e-6 * (from_x + from_w + std::abs(sum)));
        CHECK(std::abs(ours - exact) <= 1.001 * (from_x + from_w) + 2e-6 * std::abs(exact));
      }
    // Rows beside each other and the way to the integer products change no bit.
    CHECK(products<typename Grouping::template format<quickest>, 1>(x, weights) == tile);
    CHECK(products<typename Grouping::template format<byte_product::plain>, 2>(x, weights) == tile);
    CHECK(products<typename Grouping::template format<byte_product::pairs>, 4>(x, weights) == tile);
    if constexpr (block_type::bits == 4 && !std::same_as<block_type, mxfp4_block>)
      CHECK(products<typename Grouping::template format<HMOE_DETAIL_NARROW_PRODUCT>, 4>(x, weights) == tile);
  }
}

TEST_CASE("rows with one scale for their activations: a token has the same bits in any batch, and on any threads") {
  using format = formats::basic_q4<64, formats::activation_scale::row>;
  const auto packed = simd<>::pack<format>(glu_with_biases);
  const index_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
  const std::vector<float> halves(25, 0.5F);
  const auto forward = [&](matrix_view<const float> x, std::size_t count, bool on_input, std::size_t threads) {
    const context ctx{simd<>{}, executors::openmp{threads}};
    matrix<float> y(count, d);
    std::fill_n(y.data(), y.size(), 0.0F);
    expert_rows<float> rows{5, count, x, y.view()};
    rows.tokens = {ids, count};
    rows.entries = {ids, count};
    rows.weights = halves;
    rows.weights_on_input = on_input;
    const workspace::scope scope(ctx.workspace());
    packed.forward_rows(ctx, {&rows, 1});
    return y;
  };
  matrix<float> x(25, d), half_of_x(25, d);
  for (std::size_t t = 0; t < 25; ++t)
    for (std::size_t i = 0; i < d; ++i)
      half_of_x(t, i) = (x(t, i) = tokens(t, i)) / 2;
  const matrix<float> all = forward(x, 25, false, 1), with_weights = forward(x, 25, true, 1);
  check_same_bits(forward(x, 25, false, 3), all);
  for (const std::size_t t : {0U, 11U, 24U})
    CHECK(same_bits(forward(x.view().row_block(t, 1), 1, false, 2).row(0), all.row(t)));
  // 0.5 · f(0.5 x) by weights on the output of half the tokens is half of what weights on the input give.
  const matrix<float> of_half = forward(half_of_x, 25, false, 1);
  for (std::size_t i = 0; i < of_half.size(); ++i)
    REQUIRE(2 * of_half.data()[i] == with_weights.data()[i]);
  const auto plain = run(layer_of(expert_set{quantized<basic_q4_block<64>>(glu_with_biases)}), tokens);
  CHECK(relative_error(run(packed_layer<format>(glu_with_biases), tokens), plain) < 0.015);
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
