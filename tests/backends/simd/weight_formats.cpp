// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/experts/expert_set.hpp>

#include "backends/simd/packed_layers.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace hmoe;
using namespace support::packed_layers;

namespace {

/// The bank with each weight (not the biases) as it is stored in 16 bits.
template <class Stored, class Bank> Bank rounded(Bank bank) {
  bank.visit_parameters([](const parameter_info& info, matrix_view<float> view) {
    if (info.decay)
      for (float& value : vector_view<float>(view.data(), view.size()))
        value = static_cast<float>(Stored(value));
  });
  return bank;
}

} // namespace

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

TEST_CASE("packed float weights give the bits of the plain products") {
  const auto check = [](const auto& bank) {
    check_same_bits(run(packed_layer(bank), tokens), run(layer_of(expert_set{bank}), tokens));
  };
  check(glu);
  check(glu_with_biases);
  check(mlp);
  check(gpt_oss);
}

TEST_CASE("packed 16-bit weights are the rounded weights, multiplied in float") {
  const auto check = [](const auto& bank) {
    check_same_bits(run(packed_layer<formats::f16>(bank), tokens),
                    run(layer_of(expert_set{rounded<half>(bank)}), tokens));
    check_same_bits(run(packed_layer<formats::basic_bf16<false>>(bank), tokens),
                    run(layer_of(expert_set{rounded<bfloat16>(bank)}), tokens));
  };
  check(glu_with_biases);
  check(mlp);
}

TEST_CASE("bfloat16 activations err by their rounding only") {
  const auto expected = run(layer_of(expert_set{rounded<bfloat16>(glu)}), tokens);
  const auto ours = run(packed_layer<formats::bf16>(glu), tokens);
  // Two roundings of 2⁻⁹ on the way (x and the hidden values), in sums of independent signs.
  CHECK(relative_error(ours, expected) < 0x1p-8);
}
