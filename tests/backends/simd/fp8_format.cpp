// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/fp8_format.hpp>
#include <hmoe/core/fp8_block.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

using namespace hmoe;
namespace formats = backends::formats;
using formats::fp8_decoding;
using arch = xsimd::default_arch;
using vec = xsimd::batch<float, arch>;

namespace {

constexpr std::size_t lane_count = vec::size, panel_columns = 2 * lane_count, most_rows = 4;

/// Codes of any numbers but NaN and scales of any size, for the columns of a panel.
struct planted {
  std::size_t depth;
  std::vector<fp8_block> blocks; ///< [columns × ⌈depth/128⌉]

  explicit planted(std::size_t of_depth, support::random_source& random) : depth(of_depth) {
    blocks.resize(panel_columns * in_column());
    for (fp8_block& block : blocks) {
      block.scale_value = static_cast<float>(std::exp2(random.real(-9, 3)));
      for (std::uint8_t& code : block.codes)
        code = static_cast<std::uint8_t>(random.size(0, 0x7e) + 128 * random.size(0, 1));
    }
  }
  [[nodiscard]] std::size_t in_column() const { return (depth + fp8_block::size - 1) / fp8_block::size; }
  [[nodiscard]] const fp8_block& at(std::size_t b, std::size_t c) const { return blocks[c * in_column() + b]; }
};

/// The kernel of a format, on rows that begin with their value `first`.
template <class Format, std::size_t Rows>
void multiply(const matrix<float>& x, std::size_t first, std::size_t depth, const std::byte* panel, float* tile) {
  const std::size_t step = Format::row_length(depth);
  buffer<typename Format::row_value> rows(x.rows() * step);
  for (std::size_t r = 0; r < x.rows(); ++r)
    Format::template encode<arch>(x.row(r).data() + first, depth, rows.data() + r * step);
  for (std::size_t r = 0; r < x.rows(); r += Rows)
    Format::template multiply<Rows, 1, arch>(depth, rows.data() + r * step, step, panel, {panel, 64},
                                             tile + r * panel_columns);
}

template <fp8_decoding Decoding, std::size_t Rows> std::vector<float> ours(const matrix<float>& x, const planted& w) {
  using format = formats::basic_fp8<Decoding>;
  buffer<std::byte> panel(format::template panel_bytes<arch>(w.depth));
  format::template pack_blocks<arch>(w.depth, [&](std::size_t b, std::size_t c) { return w.at(b, c); }, panel.data());
  buffer<float> tile(x.rows() * panel_columns);
  multiply<format, Rows>(x, 0, w.depth, panel.data(), tile.data());
  return {tile.begin(), tile.end()};
}

/// By the kernel of the numbers themselves, block after block: Σ_b s_b Σ_{k in b} v_k x_k.
template <class Numbers> std::vector<float> expected(const matrix<float>& x, const planted& w) {
  buffer<float> sums(x.rows() * panel_columns), of_block(sums.size());
  sums.fill(0.0F);
  for (std::size_t b = 0; b < w.in_column(); ++b) {
    const std::size_t first = b * fp8_block::size, depth = std::min(fp8_block::size, w.depth - first);
    buffer<std::byte> panel(Numbers::template panel_bytes<arch>(depth));
    Numbers::template pack<arch>(
        depth, [&](std::size_t k, std::size_t c) { return float_of_e4m3(w.at(b, c).code(k)); }, panel.data());
    multiply<Numbers, 1>(x, first, depth, panel.data(), of_block.data());
    for (std::size_t i = 0; i < sums.size(); i += lane_count) {
      float scales[lane_count];
      for (std::size_t c = 0; c < lane_count; ++c)
        scales[c] = w.at(b, i % panel_columns + c).scale();
      xsimd::fma(vec::load_aligned(of_block.data() + i), vec::load_unaligned(scales), vec::load_aligned(&sums[i]))
          .store_aligned(&sums[i]);
    }
  }
  return {sums.begin(), sums.end()};
}
} // namespace

TEST_CASE("fp8 has the bits of products with the decoded numbers, in every way of decoding") {
  support::random_source random(31);
  constexpr std::size_t depths[] = {1, 2, 127, 128, 131, 384};
  for (const std::size_t depth : depths) {
    CAPTURE(depth);
    const planted weights(depth, random);
    const matrix<float> x = support::random_matrix<float>(random, most_rows, depth);
    const std::vector<float> floats = expected<formats::f32>(x, weights);
    CHECK(ours<fp8_decoding::table, 4>(x, weights) == floats);
    CHECK(ours<fp8_decoding::table, 1>(x, weights) == floats);
    CHECK(ours<fp8_decoding::halves, 4>(x, weights) == floats);
    CHECK(ours<fp8_decoding::halves, 2>(x, weights) == floats);
    constexpr fp8_decoding quickest = HMOE_DETAIL_FP8_DECODING;
    if constexpr (formats::basic_fp8<quickest>::in_pairs) {
      const std::vector<float> pairs = expected<formats::bf16>(x, weights);
      CHECK(ours<fp8_decoding::pairs, 2>(x, weights) == pairs);
      CHECK(ours<quickest, 4>(x, weights) == pairs);
      CHECK(ours<quickest, 1>(x, weights) == pairs);
    }
  }
}

TEST_CASE("fp8 errs by the rounding of weights to E4M3, and of activations to what the kernel multiplies") {
  support::random_source random(32);
  constexpr std::size_t depth = 300;
  const matrix<float> x = support::random_matrix<float>(random, most_rows, depth),
                      weights = support::random_matrix<float>(random, panel_columns, depth);
  using format = formats::fp8;
  buffer<std::byte> panel(format::panel_bytes<arch>(depth));
  format::pack<arch>(depth, [&](std::size_t k, std::size_t c) { return weights(c, k); }, panel.data());
  buffer<float> tile(most_rows * panel_columns);
  multiply<format, most_rows>(x, 0, depth, panel.data(), tile.data());
  double squares = 0, errors = 0;
  for (std::size_t r = 0; r < most_rows; ++r)
    for (std::size_t c = 0; c < panel_columns; ++c) {
      double exact = 0, bound = 0;
      for (std::size_t k = 0; k < depth; ++k) {
        const double product = static_cast<double>(x(r, k)) * static_cast<double>(weights(c, k));
        exact += product;
        bound += std::abs(product) / 16 + std::abs(static_cast<double>(x(r, k))) / (448 * 1024.0);
        bound += std::abs(product) * (std::is_same_v<format::row_value, float> ? 1e-5 : 0x1p-8);
      }
      const double error = static_cast<double>(tile[r * panel_columns + c]) - exact;
      CHECK(std::abs(error) <= bound);
      squares += exact * exact;
      errors += error * error;
    }
  CHECK(std::sqrt(errors / squares) < 0.03); // 2^-4 / √3 of a weight at most, by far less in the mean
  CHECK(std::sqrt(errors / squares) > 0.005);
}
