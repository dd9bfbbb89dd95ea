// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/experts/expert_set.hpp>

#include "backends/simd/packed_layers.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
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

TEST_CASE_TEMPLATE("activations are rounded to bfloat16 as its constructor does, subnormal numbers and NaNs, too", Row,
                   bfloat16, float) {
  std::vector<float> values;
  for (std::uint32_t upper = 0; upper <= 0xffffU; ++upper) // every sign, exponent and fraction that is kept
    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU})
      values.push_back(std::bit_cast<float>(upper << 16U | lower));
  using format = formats::basic_bf16<true, Row>;
  const auto bits = [](Row value) {
    if constexpr (std::is_same_v<Row, bfloat16>)
      return std::uint32_t{value.bits} << 16U;
    else
      return std::bit_cast<std::uint32_t>(value);
  };
  const auto rounded = [&](float value) { return std::uint32_t{bfloat16(value).bits} << 16U; };
  for (const std::size_t depth : {values.size(), std::size_t{37}, std::size_t{16}, std::size_t{1}}) {
    CAPTURE(depth);
    const float* from = values.data() + (values.size() - depth) / 2;
    std::vector<Row> row(depth + 2, Row(7.0F));
    format::template encode<xsimd::default_arch>(from, depth, row.data());
    CHECK(std::equal(from, from + depth, row.data(),
                     [&](float value, Row held) { return rounded(value) == bits(held); }));
    CHECK(bits(row[depth]) == (depth % 2 == 0 ? rounded(7.0F) : 0)); // the other half of the last pair
    CHECK(bits(row[depth + 1]) == rounded(7.0F));
  }
}

TEST_CASE("rounded activations have the same products, whatever they are held in") {
  using arch = xsimd::default_arch;
  using in_floats = formats::basic_bf16<true, float>;
  constexpr std::size_t rows = 4, depth = 151, columns = 2 * formats::detail::lanes<arch>;
  support::random_source random(41);
  const matrix<float> x = support::random_matrix<float>(random, rows, depth),
                      weights = support::random_matrix<float>(random, columns, depth);
  buffer<std::byte> panel(in_floats::panel_bytes<arch>(depth));
  in_floats::pack<arch>(depth, [&](std::size_t k, std::size_t c) { return weights(c, k); }, panel.data());
  const auto products = [&]<class Format>(Format) {
    const std::size_t step = Format::row_length(depth);
    buffer<typename Format::row_value> held(rows * step);
    for (std::size_t r = 0; r < rows; ++r)
      Format::template encode<arch>(x.row(r).data(), depth, held.data() + r * step);
    buffer<float> tile(rows * columns);
    Format::template multiply<rows, 1, arch>(depth, held.data(), step, panel.data(), {panel.data(), 0}, tile.data());
    return tile;
  };
  const auto check = [&](const buffer<float>& tile) {
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c) {
        double expected = 0, size = 0;
        for (std::size_t k = 0; k < depth; ++k) {
          const double product =
              double{static_cast<float>(bfloat16(x(r, k)))} * double{static_cast<float>(bfloat16(weights(c, k)))};
          expected += product;
          size += std::abs(product);
        }
        CHECK(std::abs(double{tile[r * columns + c]} - expected) <= 1e-6 * size);
      }
  };
  check(products(in_floats{}));
#if HMOE_DETAIL_HAS_BF16_DOT
  check(products(formats::basic_bf16<true>{}));
#endif
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
