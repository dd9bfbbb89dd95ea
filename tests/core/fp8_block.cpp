// SPDX-License-Identifier: MIT
#include <hmoe/core/fp8_block.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

using namespace hmoe;

namespace {
/// The nearest of all codes, the even one of two.
unsigned nearest_by_search(float x) {
  unsigned best = 0;
  for (unsigned code = 1; code < 0x7fU; ++code) {
    const auto off = [&](unsigned of) {
      return std::abs(static_cast<double>(float_of_e4m3(static_cast<std::uint8_t>(of))) -
                      std::abs(static_cast<double>(x)));
    };
    if (off(code) < off(best) || (off(code) == off(best) && code % 2 == 0))
      best = code;
  }
  return best | (std::signbit(x) ? 0x80U : 0U);
}
} // namespace

TEST_CASE("the nearest E4M3 number: each one, the middles between two, and their neighbours") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (unsigned code = 0; code < 0x7fU; ++code) {
    CAPTURE(code);
    const float number = float_of_e4m3(static_cast<std::uint8_t>(code));
    const float next = code < 0x7eU ? float_of_e4m3(static_cast<std::uint8_t>(code + 1)) : 480.0F;
    CHECK(unsigned{nearest_e4m3(number)} == code);
    CHECK(unsigned{nearest_e4m3(-number)} == (code | 0x80U));
    const float middle = (number + next) / 2;
    for (const float x : {middle, std::nextafter(middle, 0.0F), std::nextafter(middle, infinity)}) {
      CHECK(unsigned{nearest_e4m3(x)} == nearest_by_search(x));
      CHECK(unsigned{nearest_e4m3(-x)} == nearest_by_search(-x));
    }
  }
  CHECK(nearest_e4m3(infinity) == 0x7e);
  CHECK(nearest_e4m3(-1e30F) == 0xfe);
  CHECK(nearest_e4m3(std::numeric_limits<float>::quiet_NaN()) == 0x7f);
  CHECK(nearest_e4m3(std::numeric_limits<float>::denorm_min()) == 0);
}

TEST_CASE("a weight of an fp8_block is off by a sixteenth of it, or by half of the least number") {
  support::random_source random(11);
  for (const float size : {1.0F, 1e-3F, 3e30F, 1e-30F, 0.0F}) {
    std::array<float, fp8_block::size> values{};
    for (float& value : values) { // of all sizes
      const auto magnitude = static_cast<float>(std::exp2(random.real(-22, 0)));
      value = size * (random.real(-1, 1) < 0 ? -magnitude : magnitude);
    }
    const fp8_block block = fp8_block::quantize(values.data());
    float largest = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      largest = std::max(largest, std::abs(values[i]));
      const auto w = static_cast<double>(values[i]), s = static_cast<double>(block.scale());
      CHECK(std::abs(static_cast<double>(block.value(i)) - w) <=
            std::max(std::abs(w) / 16, s / 1024) + std::abs(w) * 0x1p-22);
    }
    CHECK(block.scale() == doctest::Approx(std::max(largest / 448, std::numeric_limits<float>::min())));
  }
}
