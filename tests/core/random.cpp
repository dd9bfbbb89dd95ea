// SPDX-License-Identifier: MIT
#include <hmoe/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

using hmoe::philox;
using hmoe::seed;

TEST_CASE("Philox4x32-10 gives the known answers of Random123 (tests/kat_vectors)") {
  using block = philox::block;
  constexpr std::uint32_t ones = 0xffffffffU;
  static_assert(philox::generate(block{0, 0, 0, 0}, {0, 0}) ==
                block{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U});
  static_assert(philox::generate(block{ones, ones, ones, ones}, {ones, ones}) ==
                block{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU});
  CHECK(philox::generate(block{0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}) ==
        block{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U});
}

TEST_CASE("seed, stream and position each fill their half of key and counter") {
  const std::uint64_t position = 0x85a308d3'243f6a88ULL, stream = 0x03707344'13198a2eULL, key = 0x299f31d0'a4093822ULL;
  CHECK(philox::generate(seed{key}, stream, position) ==
        philox::block{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U});
  // No two of these are the same sequence.
  std::set<double> seen;
  for (std::uint64_t s = 0; s < 8; ++s)
    for (std::uint64_t t = 0; t < 8; ++t)
      for (std::uint64_t i = 0; i < 64; ++i)
        seen.insert(hmoe::uniform(seed{s}, t, i));
  CHECK(seen.size() == 8 * 8 * 64);
}

TEST_CASE("the unit interval is open at both ends") {
  constexpr std::uint32_t ones = 0xffffffffU;
  static_assert(hmoe::unit_interval(0, 0) > 0);
  static_assert(hmoe::unit_interval(ones, ones) < 1);
  CHECK(hmoe::unit_interval(0, 0) == 0x1p-53);
  CHECK(hmoe::unit_interval(ones, ones) == 1 - 0x1p-53);
  CHECK(hmoe::unit_interval(0x80000000U, 0) == 0.5 + 0x1p-53);
  CHECK(hmoe::unit_interval(1, 0) == 0x1p-32 + 0x1p-53);
  CHECK(hmoe::unit_interval(0, 1U << 12U) == 0x1p-52 + 0x1p-53);
}

TEST_CASE("moments of the uniform and the normal distribution") {
  constexpr std::size_t count = 200000;
  constexpr auto n = static_cast<double>(count);
  double mean = 0, square = 0;
  std::array<int, 16> bins{};
  for (std::size_t i = 0; i < count; ++i) {
    const double u = hmoe::uniform(seed{11}, 5, i);
    mean += u / n;
    square += u * u / n;
    ++bins[static_cast<std::size_t>(u * 16)];
  }
  // Five standard errors each; the numbers are fixed, so this cannot fail by chance on one machine only.
  CHECK(std::abs(mean - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(square - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
  for (const int bin : bins)
    CHECK(std::abs(bin - n / 16) < 5 * std::sqrt(n / 16));

  std::array<double, 5> moments{};
  std::array<int, 4> beyond{};
  double previous = 0, covariance = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double z = hmoe::normal(seed{11}, 5, i);
    for (std::size_t k = 1; k < 5; ++k)
      moments[k] += std::pow(z, static_cast<double>(k)) / n;
    for (std::size_t k = 0; k < 4; ++k)
      beyond[k] += z > static_cast<double>(k) ? 1 : 0;
    covariance += z * previous / n;
    previous = z;
  }
  CHECK(std::abs(moments[1]) < 5 * std::sqrt(1 / n));
  CHECK(std::abs(moments[2] - 1) < 5 * std::sqrt(2 / n));
  CHECK(std::abs(moments[3]) < 5 * std::sqrt(15 / n));
  CHECK(std::abs(moments[4] - 3) < 5 * std::sqrt(96 / n));
  CHECK(std::abs(covariance) < 5 * std::sqrt(1 / n));
  for (std::size_t k = 0; k < 4; ++k) {
    const double tail = 0.5 * std::erfc(static_cast<double>(k) / std::sqrt(2.0));
    CHECK(std::abs(beyond[k] - n * tail) < 5 * std::sqrt(n * tail));
  }
}

TEST_CASE("a filled array depends on seed, stream and index only") {
  constexpr std::size_t count = 257;
  std::vector<double> forward(count), backward(count), shorter(100);
  hmoe::fill_normal(hmoe::vector_view<double>(forward), 0.5, seed{3}, 9);
  for (std::size_t i = count; i-- > 0;)
    backward[i] = 0.5 * hmoe::normal(seed{3}, 9, i);
  CHECK(forward == backward);
  hmoe::fill_normal(hmoe::vector_view<double>(shorter), 0.5, seed{3}, 9);
  CHECK(std::equal(shorter.begin(), shorter.end(), forward.begin()));

  std::vector<double> other(count);
  hmoe::fill_normal(hmoe::vector_view<double>(other), 0.5, seed{3}, 10);
  CHECK(other != forward);
  hmoe::fill_normal(hmoe::vector_view<double>(other), 0.5, seed{4}, 9);
  CHECK(other != forward);

  std::vector<float> narrow(count);
  hmoe::fill_normal(hmoe::vector_view<float>(narrow), 0.5, seed{3}, 9);
  for (std::size_t i = 0; i < count; ++i)
    CHECK(narrow[i] == static_cast<float>(forward[i]));
}
