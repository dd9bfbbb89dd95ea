// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

/// Weights in blocks of 32, or of another multiple of 32, that share a scale. Each kind has
///   size              weights of a block
///   quantize(values)  static: from that many floats, each at most `largest_quantized_weight` in magnitude (unchecked)
///   value(i)          weight i as it is read back: scale() · (code(i) − zero) + offset()
///   code(i)           what is stored of it, below 2^bits
namespace hmoe {

/// Weights that share a scale, where nothing else is said.
inline constexpr std::size_t quantized_block_size = 32;
/// Weights beyond it are not quantised: scales and offsets in binary16 would overflow.
inline constexpr float largest_quantized_weight = 0x1p15F;

namespace detail {
/// The next binary16 number that is not below x ≥ 0, and not 0: a scale that is rounded down would cut off the largest
/// weight.
[[nodiscard]] inline half half_not_below(float x) noexcept {
  half h(x);
  if (static_cast<float>(h) < x || h.bits == 0)
    ++h.bits;
  return h;
}
[[nodiscard]] inline float largest_magnitude(const float* values, std::size_t count) noexcept {
  float largest = 0;
  for (std::size_t i = 0; i < count; ++i)
    largest = std::max(largest, std::abs(values[i]));
  return largest;
}
[[nodiscard]] inline std::uint8_t nearest_code(float x, int zero, int most) noexcept {
  return static_cast<std::uint8_t>(std::clamp(static_cast<int>(std::nearbyint(x)) + zero, 0, most));
}
/// Codes of four bits, two in a byte.
template <std::size_t Count = quantized_block_size> struct nibbles {
  std::uint8_t bytes[Count / 2] = {};

  void set(std::size_t i, std::uint8_t code) noexcept {
    bytes[i / 2] = static_cast<std::uint8_t>(bytes[i / 2] | code << (i % 2 * 4));
  }
  [[nodiscard]] std::uint8_t operator[](std::size_t i) const noexcept {
    return static_cast<std::uint8_t>(bytes[i / 2] >> (i % 2 * 4) & 15U);
  }
};
} // namespace detail

/// 8 bits, symmetric: w = s·q, q = −127 … 127, s = max|w|/127 in binary16. |error| ≤ s/2. Size + 2 bytes.
template <std::size_t Size> struct basic_q8_block {
  static_assert(Size % quantized_block_size == 0, "hmoe::basic_q8_block: Size is no multiple of 32");
  static constexpr std::size_t size = Size, bits = 8;
  static constexpr int zero = 128;
  half scale_bits;
  std::uint8_t codes[Size];

  [[nodiscard]] static basic_q8_block quantize(const float* values) noexcept {
    basic_q8_block block{detail::half_not_below(detail::largest_magnitude(values, Size) / 127), {}};
    for (std::size_t i = 0; i < Size; ++i)
      block.codes[i] = detail::nearest_code(values[i] / block.scale(), zero, 255);
    return block;
  }
  [[nodiscard]] float scale() const noexcept { return scale_bits; }
  [[nodiscard]] std::uint8_t code(std::size_t i) const noexcept { return codes[i]; }
  [[nodiscard]] float value(std::size_t i) const noexcept { return scale() * static_cast<float>(codes[i] - zero); }
};

using q8_block = basic_q8_block<quantized_block_size>;

/// 4 bits, symmetric: w = s·q, q = −7 … 7, s = max|w|/7 in binary16. |error| ≤ s/2. Size / 2 + 2 bytes.
template <std::size_t Size> struct basic_q4_block {
  static_assert(Size % quantized_block_size == 0, "hmoe::basic_q4_block: Size is no multiple of 32");
  static constexpr std::size_t size = Size, bits = 4;
  static constexpr int zero = 8;
  half scale_bits;
  detail::nibbles<Size> codes;

  [[nodiscard]] static basic_q4_block quantize(const float* values) noexcept {
    basic_q4_block block{detail::half_not_below(detail::largest_magnitude(values, Size) / 7), {}};
    for (std::size_t i = 0; i < Size; ++i)
      block.codes.set(i, detail::nearest_code(values[i] / block.scale(), zero, 15));
    return block;
  }
  [[nodiscard]] float scale() const noexcept { return scale_bits; }
  [[nodiscard]] std::uint8_t code(std::size_t i) const noexcept { return codes[i]; }
  [[nodiscard]] float value(std::size_t i) const noexcept { return scale() * static_cast<float>(codes[i] - zero); }
};

using q4_block = basic_q4_block<quantized_block_size>;

/// 4 bits between the least and the greatest weight: w = s·q + m, q = 0 … 15, m = min w (rounded down) and
/// s = (max w − m)/15, both in binary16. |error| ≤ s/2. 20 bytes.
struct q4_offset_block {
  static constexpr std::size_t size = quantized_block_size, bits = 4;
  static constexpr int zero = 0;
  half scale_bits, offset_bits;
  detail::nibbles<> codes;

  [[nodiscard]] static q4_offset_block quantize(const float* values) noexcept {
    const auto [least, greatest] = std::minmax_element(values, values + quantized_block_size);
    half offset(*least);
    if (static_cast<float>(offset) > *least) // towards −∞: down in magnitude if positive, up if negative
      offset.bits = static_cast<std::uint16_t>(*least > 0         ? offset.bits - 1
                                               : offset.bits == 0 ? 0x8001
                                                                  : offset.bits + 1);
    q4_offset_block block{detail::half_not_below((*greatest - static_cast<float>(offset)) / 15), offset, {}};
    for (std::size_t i = 0; i < quantized_block_size; ++i)
      block.codes.set(i, detail::nearest_code((values[i] - block.offset()) / block.scale(), zero, 15));
    return block;
  }
  [[nodiscard]] float scale() const noexcept { return scale_bits; }
  [[nodiscard]] float offset() const noexcept { return offset_bits; }
  [[nodiscard]] std::uint8_t code(std::size_t i) const noexcept { return codes[i]; }
  [[nodiscard]] float value(std::size_t i) const noexcept { return scale() * static_cast<float>(codes[i]) + offset(); }
};

/// MXFP4 (OCP Microscaling Formats 1.0; the experts of gpt-oss): values 0, ½, 1, 1½, 2, 3, 4, 6 with a sign (E2M1), to
/// the nearest, ties to the even code, times a power of two: 2^⌊log₂ max|w|⌋ / 4. In units of that power |error| ≤ ¼ up
/// to |w| = 2, ½ up to 4, 1 up to 6, and |w| − 6 < 2 above, where the standard saturates. 17 bytes.
struct mxfp4_block {
  static constexpr std::size_t size = quantized_block_size, bits = 4;
  std::uint8_t exponent;   ///< of the scale, biased by 127 (E8M0)
  detail::nibbles<> codes; ///< sign, then E2M1

  [[nodiscard]] static mxfp4_block quantize(const float* values) noexcept {
    const float largest = detail::largest_magnitude(values, size);
    int exponent = 0;
    if (largest > 0)
      std::frexp(largest, &exponent); // largest = m·2^exponent, ½ ≤ m < 1
    mxfp4_block block{static_cast<std::uint8_t>(std::clamp(exponent - 1 - 2 + 127, 0, 254)), {}};
    for (std::size_t i = 0; i < quantized_block_size; ++i) {
      const float magnitude = std::abs(values[i]) / block.scale();
      std::uint8_t best = 0;
      for (std::uint8_t c = 1; c < 8; ++c) {
        const float middle = (magnitude_of(c - 1U) + magnitude_of(c)) / 2;
        if (magnitude > middle || (magnitude == middle && c % 2 == 0))
          best = c;
      }
      block.codes.set(i, static_cast<std::uint8_t>(best | (std::signbit(values[i]) ? 8U : 0U)));
    }
    return block;
  }
  [[nodiscard]] float scale() const noexcept { return std::ldexp(1.0F, exponent - 127); }
  [[nodiscard]] std::uint8_t code(std::size_t i) const noexcept { return codes[i]; }
  [[nodiscard]] float value(std::size_t i) const noexcept {
    const float magnitude = scale() * magnitude_of(codes[i] & 7U);
    return (codes[i] & 8U) != 0 ? -magnitude : magnitude;
  }
  /// Twice the values of codes 0 … 15, which are whole numbers.
  static constexpr std::int8_t doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

private:
  [[nodiscard]] static float magnitude_of(unsigned code) noexcept { return static_cast<float>(doubled[code]) / 2; }
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
