// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/channel_formats.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

using namespace hmoe;
using backends::formats::activation_scale;
using backends::formats::quantized_by_channel;
using backends::simd_detail::byte_product;
using arch = xsimd::default_arch;

namespace {

constexpr std::size_t columns = 2 * xsimd::batch<float, arch>::size, block = 128;

/// rows · weightsᵀ by the format's kernel, Rows at a time; x has a multiple of Rows rows.
template <byte_product Product, std::size_t Rows, activation_scale Scale = activation_scale::block>
std::vector<float> multiply(const matrix<float>& x, const matrix<float>& weights) {
  using format = quantized_by_channel<Product, Scale>;
  const std::size_t depth = x.cols(), step = format::row_length(depth);
  buffer<std::byte> panel(format::template panel_bytes<arch>(depth)), rows(x.rows() * step);
  format::template pack<arch>(depth, [&](std::size_t k, std::size_t c) { return weights(c, k); }, panel.data());
  const std::size_t part = format::encodes_rows ? depth : 2 * block; // in parts, as hidden values come
  for (std::size_t r = 0; r < x.rows(); ++r)
    for (std::size_t k = 0; k < depth; k += part)
      format::template encode<arch>(x.row(r).data() + k, std::min(part, depth - k),
                                    rows.data() + r * step + format::row_offset(k));
  buffer<float> tile(x.rows() * columns);
  for (std::size_t r = 0; r < x.rows(); r += Rows)
    format::template multiply<Rows, 1, arch>(depth, rows.data() + r * step, step, panel.data(), {panel.data(), 64},
                                             tile.data() + r * columns);
  return {tile.data(), tile.data() + tile.size()};
}

float largest(const float* values, std::size_t count) {
  float most = 0;
  for (std::size_t i = 0; i < count; ++i)
    most = std::max(most, std::abs(values[i]));
  return most;
}

struct sum_and_bound {
  double sum, bound;
};
/// Σ of what both are rounded to, block after block, and how far that may be from the sum of what they were.
/// Activations share a scale in groups of that size.
sum_and_bound expected(const float* x, const float* w, std::size_t depth, std::size_t group) {
  const double scale_w = static_cast<double>(largest(w, depth)) / 127;
  sum_and_bound result{0, 0};
  for (std::size_t k = 0; k < depth; k += group) {
    const std::size_t count = std::min(group, depth - k);
    const double scale_x = static_cast<double>(largest(x + k, count)) / 127;
    for (std::size_t i = k; i < k + count; ++i) {
      const double xi = static_cast<double>(x[i]), wi = static_cast<double>(w[i]);
      const double rounded_x = scale_x > 0 ? std::nearbyint(xi / scale_x) * scale_x : 0;
      const double rounded_w = scale_w > 0 ? std::nearbyint(wi / scale_w) * scale_w : 0;
      result.sum += rounded_x * rounded_w;
      result.bound += scale_x / 2 * std::abs(wi) + scale_w / 2 * std::abs(rounded_x);
    }
  }
  return result;
}

} // namespace

TEST_CASE("q8_channel multiplies codes exactly, scales them by channel and block or row, and errs by rounding only") {
  support::random_source random(29);
  constexpr std::size_t depths[] = {1, 3, 4, 127, 128, 129, 300, 640};
  for (const std::size_t depth : depths) {
    CAPTURE(depth);
    matrix<float> x = support::random_matrix<float>(random, 12, depth),
                  weights = support::random_matrix<float>(random, columns, depth);
    std::fill_n(weights.row(1).data(), depth, 0.0F); // a channel and a row of zeros, and a wide range of scales
    std::fill_n(x.row(2).data(), depth, 0.0F);
    for (std::size_t k = 0; k < depth; ++k) {
      weights(2, k) *= 1e-20F;
      x(3, k) *= 1e15F;
    }
    constexpr byte_product quickest = HMOE_DETAIL_WIDE_PRODUCT;
    const auto check = [&](const std::vector<float>& tile, std::size_t block_of_x) {
      for (std::size_t r = 0; r < x.rows(); ++r)
        for (std::size_t c = 0; c < columns; ++c) {
          const auto [sum, bound] = expected(x.row(r).data(), weights.row(c).data(), depth, block_of_x);
          const double ours = static_cast<double>(tile[r * columns + c]);
          // One rounding of a code where float and double disagree about a tie, and the float sums' own.
          CHECK(std::abs(ours - sum) <= 0.02 * bound + 1e-6 * std::abs(sum));
          double exact = 0;
          for (std::size_t k = 0; k < depth; ++k)
            exact += static_cast<double>(x(r, k)) * static_cast<double>(weights(c, k));
          CHECK(std::abs(ours - exact) <= 1.001 * bound + 1e-6 * std::abs(exact));
        }
    };
    const std::vector<float> tile = multiply<quickest, 12>(x, weights);
    check(tile, block);
    const std::vector<float> by_row = multiply<quickest, 12, activation_scale::row>(x, weights);
    check(by_row, depth);
    CHECK(multiply<byte_product::plain, 3, activation_scale::row>(x, weights) == by_row);
    // Rows beside each other and the way to the integer products change no bit.
    CHECK(multiply<quickest, 1>(x, weights) == tile);
    CHECK(multiply<quickest, 4>(x, weights) == tile);
    CHECK(multiply<byte_product::plain, 3>(x, weights) == tile);
    CHECK(multiply<byte_product::pairs, 6>(x, weights) == tile);
  }
}

TEST_CASE("q8_channel: the largest codes do not overflow, and what is not finite makes its own row NaN") {
  matrix<float> x(4, 512), weights(columns, 512);
  std::fill_n(x.data(), x.size(), -1.0F);
  std::fill_n(weights.data(), weights.size(), std::numeric_limits<float>::max() / 1024);
  x(1, 300) = std::numeric_limits<float>::infinity();
  x(2, 0) = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> tile = multiply<HMOE_DETAIL_WIDE_PRODUCT, 4>(x, weights);
  for (std::size_t c = 0; c < columns; ++c) {
    CHECK(tile[c] == doctest::Approx(-512.0 * static_cast<double>(weights(0, 0))).epsilon(1e-6));
    CHECK(std::isnan(tile[columns + c]));
    CHECK(std::isnan(tile[2 * columns + c]));
    CHECK(tile[3 * columns + c] == tile[c]);
  }
}

TEST_CASE("a range of activations is that of their magnitudes, and none if one of them is not finite") {
  using limits = std::numeric_limits<float>;
  const auto range_of = [](float first, float other) {
    alignas(memory_alignment) float values[64];
    std::fill_n(values, 64, other);
    values[37] = first;
    backends::formats::detail::activation_range<arch> range;
    range.add(values, 64);
    return range.get();
  };
  for (const float largest : {0.0F, -0.0F, -limits::denorm_min(), limits::min(), 3.5F, -limits::max()})
    for (const float other : {0.0F, -largest / 2, largest / 3}) {
      const auto range = range_of(largest, other);
      CHECK(range.finite);
      CHECK(range.scale == std::abs(largest) / 127);
      CHECK(range.inverse == (largest == 0 ? 0.0F : 127 / std::abs(largest)));
    }
  for (const float bad : {limits::infinity(), -limits::infinity(), limits::quiet_NaN(), -limits::quiet_NaN()})
    for (const float other : {0.0F, -limits::max()}) {
      const auto range = range_of(bad, other);
      CHECK_FALSE(range.finite);
      CHECK(std::isnan(range.scale));
      CHECK(range.inverse == 0);
    }
}
