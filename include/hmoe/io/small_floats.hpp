// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/fp8_block.hpp>
#include <hmoe/core/scalar.hpp>

#include <cstdint>

/// Floating-point numbers of 4 and 8 bits; float holds all of them exactly (OCP 8-bit Floating Point Specification 1.0,
/// OCP Microscaling Formats 1.0).
namespace hmoe::io {

using hmoe::float_of_e4m3;
/// 5 bits of exponent with bias 15, 2 of fraction, infinities and NaN as in binary16, whose upper half it is.
[[nodiscard]] inline float float_of_e5m2(std::uint8_t code) noexcept {
  half value;
  value.bits = static_cast<std::uint16_t>(code << 8U);
  return value;
}
/// 2^(code − 127); NaN is 0xff.
[[nodiscard]] inline float float_of_e8m0(std::uint8_t code) noexcept {
  if (code == 0xffU)
    return __builtin_bit_cast(float, 0x7fc00000U);
  return __builtin_bit_cast(float, code == 0 ? 0x00400000U : static_cast<std::uint32_t>(code) << 23U);
}
/// The lower four bits: 0, ½, 1, 1½, 2, 3, 4, 6, with bit 3 the sign.
[[nodiscard]] inline float float_of_e2m1(unsigned code) noexcept {
  constexpr float values[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};
  return values[code & 15U];
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
