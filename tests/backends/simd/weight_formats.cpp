// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/weight_formats.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace hmoe;

TEST_CASE("activations are rounded to bfloat16 as its constructor does, subnormal numbers and NaNs, too") {
  std::vector<float> values;
  for (std::uint32_t upper = 0; upper <= 0xffffU; ++upper) // every sign, exponent and fraction that is kept
    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU})
      values.push_back(std::bit_cast<float>(upper << 16U | lower));
  using format = backends::formats::basic_bf16<true>;
  for (const std::size_t depth : {values.size(), std::size_t{37}, std::size_t{16}, std::size_t{1}}) {
    CAPTURE(depth);
    const float* from = values.data() + (values.size() - depth) / 2;
    std::vector<bfloat16> row(depth + 2, bfloat16(7.0F));
    format::encode<xsimd::default_arch>(from, depth, row.data());
    CHECK(std::equal(from, from + depth, row.data(),
                     [](float value, bfloat16 rounded) { return bfloat16(value).bits == rounded.bits; }));
    CHECK(row[depth].bits == (depth % 2 == 0 ? bfloat16(7.0F).bits : 0)); // the other half of the last pair
    CHECK(row[depth + 1].bits == bfloat16(7.0F).bits);
  }
}
