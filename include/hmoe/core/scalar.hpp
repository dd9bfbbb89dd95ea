// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace hmoe {

// __builtin_bit_cast, because std::bit_cast is no device function to nvcc.

/// 16-bit storage of the upper half of a float (8 exponent bits, 7 fraction bits). Arithmetic happens in float;
/// narrowing rounds to nearest, ties to even; NaN stays NaN.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  HMOE_HOST_DEVICE explicit bfloat16(float value) noexcept {
    const auto word = __builtin_bit_cast(std::uint32_t, value);
    if ((word & 0x7fffffffU) > 0x7f800000U) { // NaN: keep the sign, force a quiet fraction that survives the cut
      bits = static_cast<std::uint16_t>((word >> 16U) | 0x0040U);
    } else {
      const std::uint32_t round = 0x7fffU + ((word >> 16U) & 1U);
      bits = static_cast<std::uint16_t>((word + round) >> 16U);
    }
  }
  HMOE_HOST_DEVICE operator float() const noexcept {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16U);
  }
};

/// IEEE 754 binary16 storage. Arithmetic happens in float; narrowing rounds to nearest, ties to even, overflows to
/// infinity and keeps subnormals.
struct half {
  std::uint16_t bits = 0;

  half() = default;
  HMOE_HOST_DEVICE explicit half(float value) noexcept {
    const auto word = __builtin_bit_cast(std::uint32_t, value);
    const auto sign = static_cast<std::uint16_t>((word >> 16U) & 0x8000U);
    const std::uint32_t magnitude = word & 0x7fffffffU;
    if (magnitude > 0x7f800000U) {
      bits = static_cast<std::uint16_t>(sign | 0x7e00U);
    } else if (magnitude >= 0x47800000U) { // 65536 and above
      bits = static_cast<std::uint16_t>(sign | 0x7c00U);
    } else if (magnitude < 0x38800000U) { // below 2^-14: adding 0.5 lets the float unit round to a multiple of 2^-24
      const float shifted = __builtin_bit_cast(float, magnitude) + 0.5F;
      bits = static_cast<std::uint16_t>(sign | (__builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000U));
    } else {
      const std::uint32_t rebased = magnitude - 0x38000000U; // exponent bias 127 -> 15
      const std::uint32_t round = 0x0fffU + ((rebased >> 13U) & 1U);
      bits = static_cast<std::uint16_t>(sign | ((rebased + round) >> 13U));
    }
  }
  HMOE_HOST_DEVICE operator float() const noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16U;
    const std::uint32_t exponent = (bits >> 10U) & 0x1fU;
    const std::uint32_t fraction = bits & 0x03ffU;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
      return __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, magnitude) | sign);
    }
    const std::uint32_t rebased = exponent == 31 ? 0xffU : exponent + 112U;
    return __builtin_bit_cast(float, sign | (rebased << 23U) | (fraction << 13U));
  }
};

/// Types that hmoe computes in.
template <class T>
concept float_or_double = std::same_as<T, float> || std::same_as<T, double>;

/// Types that hmoe stores weights and activations in.
template <class T>
concept storage_scalar = float_or_double<T> || std::same_as<T, bfloat16> || std::same_as<T, half>;

/// The type that arithmetic on stored values happens in: float for the 16-bit types, T itself for float and double.
template <storage_scalar T> using compute_t = std::conditional_t<float_or_double<T>, T, float>;

/// The reference backend's wide accumulator.
template <storage_scalar T> using accumulator_t = double;

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
