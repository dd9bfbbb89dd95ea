// SPDX-License-Identifier: MIT
#include <hmoe/core/quantized_block.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

using namespace hmoe;

namespace {

constexpr std::size_t n = quantized_block_size;

/// Blocks that are hard: of many sizes, lopsided, with one large value, constant, all zero.
std::vector<std::vector<float>> blocks() {
  support::random_source random(3);
  std::vector<std::vector<float>> all;
  for (const float size : {1e-9F, 1e-4F, 0.02F, 1.0F, 300.0F})
    for (int i = 0; i < 50; ++i) {
      const auto values = support::random_matrix<float>(random, 1, n);
      std::vector<float> block;
      for (const float value : values.view().row(0))
        block.push_back(size * (value + (i % 3 == 0 ? 0.8F : 0.0F)));
      if (i % 5 == 0)
        block[static_cast<std::size_t>(i) % n] *= 20;
      all.push_back(block);
    }
  all.emplace_back(n, 0.0F);
  all.emplace_back(n, 0.37F);
  all.emplace_back(n, -0.37F);
  return all;
}

template <class Block> double largest_error(const std::vector<float>& values, const Block& block) {
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i)
    largest = std::max(largest, std::abs(double{values[i]} - double{block.value(i)}));
  return largest;
}

} // namespace

TEST_CASE_TEMPLATE("a weight is off by half a step at most", Block, q8_block, q4_block, q4_offset_block) {
  for (const auto& values : blocks()) {
    const Block block = Block::quantize(values.data());
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(block.code(i) < 1 << Block::bits);
      CHECK(block.value(i) == block.value(i)); // no NaN from an empty range
    }
    CHECK(largest_error(values, block) <= 0.5 * double{block.scale()} * (1 + 1e-5));
  }
}

TEST_CASE("a step is the range of the block divided by the codes, but for the rounding of the scale to 11 bits") {
  for (const auto& values : blocks()) {
    const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
    const double most = std::max(std::abs(double{*least}), std::abs(double{*greatest}));
    const double grain = 0x1p-24; // of the smallest binary16 numbers
    CHECK(double{q8_block::quantize(values.data()).scale()} <= most / 127 * (1 + 0x1p-10) + grain);
    CHECK(double{q4_block::quantize(values.data()).scale()} <= most / 7 * (1 + 0x1p-10) + grain);
    const double range = double{*greatest} - double{*least} + most * 0x1p-10;
    CHECK(double{q4_offset_block::quantize(values.data()).scale()} <= range / 15 * (1 + 0x1p-10) + 2 * grain);
  }
}

TEST_CASE("what is representable survives") {
  std::vector<float> values;
  for (int i = 0; i < 32; ++i)
    values.push_back(0.25F * static_cast<float>(i % 15 - 7));
  const auto q4 = q4_block::quantize(values.data());
  const auto q4_offset = q4_offset_block::quantize(values.data());
  for (std::size_t i = 0; i < n; ++i) {
    CHECK(q4.value(i) == values[i]);
    CHECK(std::abs(q4_offset.value(i) - values[i]) <= 0.5F * q4_offset.scale());
  }
}

TEST_CASE("MXFP4 takes the nearest of its sixteen values, ties to the even code") {
  const float powers[] = {0x1p-20F, 1.0F, 0x1p20F};
  for (const float power : powers) {
    std::vector<float> values(n, 0.0F), expected(n, 0.0F);
    // The largest sets the scale to `power`. Ties by hand: 0.25 → 0, 0.75 → 1, 1.25 → 1, 1.75 → 2, 2.5 → 2, 3.5 → 4,
    // 5 → 4; above 6 it saturates.
    const float in[] = {6, 0.25F, 0.26F, 0.75F, 1.25F, 1.75F, 2.5F, 2.6F, 3.5F, 5, 5.1F, 7.9F, -0.6F, -3, -7, 0};
    const float out[] = {6, 0, 0.5F, 1, 1, 2, 2, 3, 4, 4, 6, 6, -0.5F, -3, -6, 0};
    for (std::size_t i = 0; i < std::size(in); ++i) {
      values[i] = in[i] * power;
      expected[i] = out[i] * power;
    }
    const auto block = mxfp4_block::quantize(values.data());
    CHECK(block.scale() == power);
    for (std::size_t i = 0; i < n; ++i)
      CHECK(block.value(i) == expected[i]);
  }
  for (const auto& values : blocks()) {
    const auto block = mxfp4_block::quantize(values.data());
    for (std::size_t i = 0; i < n; ++i) {
      const double size = std::abs(double{values[i]}) / double{block.scale()};
      CHECK(std::abs(double{values[i]} - double{block.value(i)}) <= double{block.scale()} * (size <= 2   ? 0.25
                                                                                             : size <= 4 ? 0.5
                                                                                             : size <= 6 ? 1
                                                                                                         : size - 6));
    }
  }
}
