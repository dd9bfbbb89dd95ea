// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace hmoe {

/// E4M3 (OCP 8-bit Floating Point Specification 1.0): 4 bits of exponent with bias 7, 3 of fraction; no infinity, NaN
/// is 0x7f and 0xff; up to 448. Float holds all of them exactly, bfloat16 too.
[[nodiscard]] constexpr float float_of_e4m3(std::uint8_t code) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80U) << 24U, magnitude = code & 0x7fU;
  if (magnitude == 0x7fU)
    return __builtin_bit_cast(float, sign | 0x7fc00000U);
  if (magnitude < 8U)
    return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, static_cast<float>(magnitude) * 0x1p-9F));
  return __builtin_bit_cast(float, sign | ((magnitude << 20U) + (120U << 23U))); // bias 7 -> 127
}
/// The code nearest to x, ties to the even one; ±448 for what is larger, NaN for NaN.
[[nodiscard]] inline std::uint8_t nearest_e4m3(float x) noexcept {
  const auto word = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = word >> 24U & 0x80U, magnitude = word & 0x7fffffffU;
  const auto code = [sign](std::uint32_t of_magnitude) { return static_cast<std::uint8_t>(sign | of_magnitude); };
  if (magnitude > 0x7f800000U)
    return code(0x7fU);
  if (magnitude >= 0x43e00000U) // 448
    return code(0x7eU);
  if (magnitude < 0x3c800000U) { // below 2^-6: adding 2^14 lets the float unit round to a multiple of 2^-9
    const float shifted = __builtin_bit_cast(float, magnitude) + 0x1p14F;
    return code(__builtin_bit_cast(std::uint32_t, shifted) - 0x46800000U);
  }
  const std::uint32_t rebased = magnitude - (120U << 23U); // bias 127 -> 7
  return code((rebased + 0x7ffffU + (rebased >> 20U & 1U)) >> 20U);
}

/// 128 weights as E4M3 numbers that share a scale, as checkpoints have them for squares of 128 × 128: w = s·v with v of
/// E4M3. Quantised here, along k of one output channel: s = max|w|/448, |error| ≤ max(|w|/16, s/1024) (half of the last
/// bit of v, of numbers below 2^-6 that of 2^-9), and the rounding of a float.
struct fp8_block {
  static constexpr std::size_t size = 128;
  float scale_value;
  std::uint8_t codes[size];

  /// Of finite floats.
  [[nodiscard]] static fp8_block quantize(const float* values) noexcept {
    float largest = 0;
    for (std::size_t i = 0; i < size; ++i)
      largest = std::max(largest, std::abs(values[i]));
    fp8_block block{std::max(largest / 448, std::numeric_limits<float>::min()), {}};
    for (std::size_t i = 0; i < size; ++i)
      block.codes[i] = nearest_e4m3(values[i] / block.scale_value);
    return block;
  }
  [[nodiscard]] float scale() const noexcept { return scale_value; }
  [[nodiscard]] std::uint8_t code(std::size_t i) const noexcept { return codes[i]; }
  [[nodiscard]] float value(std::size_t i) const noexcept { return scale_value * float_of_e4m3(codes[i]); }
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
