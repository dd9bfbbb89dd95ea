// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

namespace hmoe::backends::formats {

/// How many activations share a scale. A row is encoded when all of it is there, so the hidden values of an expert are
/// held as floats until then.
enum class activation_scale {
  block, ///< those of a block of weights
  row,   ///< all of a row: kernels need not multiply by it before the end; an outlier costs all others their precision
};

/// Activations beside quantised weights: Size signed numbers of 8 bits, x ≈ scale · q with scale = max|x|/127, stored
/// in Code; and what a block adds to a sum whatever the weights: −zero · Σ q, or scale · Σ q to be multiplied by an
/// offset.
template <class Code, class Constant, std::size_t Size> struct activation_block {
  Code codes[Size];
  float scale;
  Constant constant;
};

namespace detail {
template <class Arch>
[[nodiscard]] inline std::int32_t largest_lane(const simd_detail::int_vector<Arch>& values) noexcept {
  constexpr std::size_t n = simd_detail::int_vector<Arch>::size;
#if defined(__AVX512F__)
  if constexpr (n == 16)
    return _mm512_reduce_max_epi32(values);
#endif
  alignas(memory_alignment) std::int32_t lanes[n];
  values.store_aligned(lanes);
  for (std::size_t rest = n / 2; rest > 0; rest /= 2)
    for (std::size_t i = 0; i < rest; ++i)
      lanes[i] = std::max(lanes[i], lanes[i + rest]);
  return lanes[0];
}

template <class Arch>
[[nodiscard]] inline std::int32_t sum_of_lanes(const simd_detail::int_vector<Arch>& values) noexcept {
  constexpr std::size_t n = simd_detail::int_vector<Arch>::size;
#if defined(__AVX512F__)
  if constexpr (n == 16)
    return _mm512_reduce_add_epi32(values);
#endif
  alignas(memory_alignment) std::int32_t lanes[n];
  values.store_aligned(lanes);
  std::int32_t sum = 0;
  for (const std::int32_t lane : lanes)
    sum += lane;
  return sum;
}

template <class Arch, class Code>
inline void store_narrow(const simd_detail::int_vector<Arch>& values, Code* to) noexcept {
  constexpr std::size_t n = simd_detail::int_vector<Arch>::size;
#if defined(__AVX512F__)
  if constexpr (n == 16 && sizeof(Code) == 1)
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(values));
  if constexpr (n == 16 && sizeof(Code) == 2)
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(values));
#endif
  alignas(memory_alignment) std::int32_t lanes[n];
  values.store_aligned(lanes);
  for (std::size_t i = 0; i < n; ++i)
    to[i] = static_cast<Code>(lanes[i]);
}

/// The range of activations that share a scale. Magnitudes are compared as integers: they are in the same order, and
/// what is not finite comes last.
template <class Arch> class activation_range {
  using vec = xsimd::batch<float, Arch>;
  using ints = simd_detail::int_vector<Arch>;

public:
  /// `count` is a multiple of the floats in a register.
  void add(const float* values, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; i += vec::size)
      largest_ = xsimd::max(largest_, xsimd::bitwise_cast<ints>(vec::load_unaligned(values + i)) & ints(0x7fffffff));
  }
  struct scaling {
    float scale, inverse;
    bool finite;
  };
  /// If one value is not finite, the scale is NaN, which spreads to the sums.
  [[nodiscard]] scaling get() const noexcept {
    const std::int32_t bits = detail::largest_lane<Arch>(largest_);
    const bool finite = bits < std::bit_cast<std::int32_t>(std::numeric_limits<float>::infinity());
    const float most = std::bit_cast<float>(bits);
    return {finite ? most / 127 : std::numeric_limits<float>::quiet_NaN(), finite && most > 0 ? 127 / most : 0.0F,
            finite};
  }

private:
  ints largest_ = ints(0);
};

/// Codes and scale of Size activations; returns Σ q. Codes of 16 bits are in fours in the order 0 2 1 3.
template <class Arch, class Code, class Constant, std::size_t Size>
std::int32_t encode_activations(const float* values, const typename activation_range<Arch>::scaling& by,
                                activation_block<Code, Constant, Size>& to) noexcept {
  using vec = xsimd::batch<float, Arch>;
  using ints = simd_detail::int_vector<Arch>;
  to.scale = by.scale;
  const vec inverse(by.inverse);
  ints sums(0);
  for (std::size_t i = 0; i < Size; i += vec::size) {
    const ints rounded = by.finite ? xsimd::nearbyint_as_int(vec::load_unaligned(values + i) * inverse) : ints(0);
    sums += rounded;
    detail::store_narrow<Arch>(rounded, to.codes + i);
  }
  if constexpr (sizeof(Code) == 2)
    for (std::size_t i = 0; i < Size; i += 4)
      std::swap(to.codes[i + 1], to.codes[i + 2]);
  return detail::sum_of_lanes<Arch>(sums);
}

/// f(values of block b, the range that they share with others, b) for blocks of Size of a row of `depth` activations,
/// each times `factor`, with zeros behind the last.
template <class Arch, std::size_t Size, activation_scale Scale, class F>
void for_each_activation_block(const float* from, std::size_t depth, float factor, const F& f) noexcept {
  const auto each = [&](const auto& g) {
    for (std::size_t k = 0, b = 0; k < depth; k += Size, ++b) {
      const std::size_t count = std::min(Size, depth - k);
      if (factor == 1 && count == Size) {
        g(from + k, b);
        continue;
      }
      float values[Size] = {};
      for (std::size_t i = 0; i < count; ++i)
        values[i] = factor * from[k + i];
      g(values, b);
    }
  };
  if constexpr (Scale == activation_scale::row) {
    activation_range<Arch> range;
    each([&](const float* values, std::size_t) { range.add(values, Size); });
    const auto shared = range.get();
    each([&](const float* values, std::size_t b) { f(values, shared, b); });
  } else {
    each([&](const float* values, std::size_t b) {
      activation_range<Arch> range;
      range.add(values, Size);
      f(values, range.get(), b);
    });
  }
}

/// Multiplies each of `count` rows of a tile by the scale of its activations, which is in their first Block.
template <class Block, class Arch>
inline void scale_rows(std::size_t count, const std::byte* rows, std::size_t step, float* tile) noexcept {
  using vec = xsimd::batch<float, Arch>;
  for (std::size_t r = 0; r < count && rows != nullptr; ++r, tile += 2 * vec::size) {
    const vec scale(reinterpret_cast<const Block*>(rows + r * step)->scale);
    (vec::load_aligned(tile) * scale).store_aligned(tile);
    (vec::load_aligned(tile + vec::size) * scale).store_aligned(tile + vec::size);
  }
}

/// dots[r] += the products of four bytes (or two words) in each lane of left and right, and those at rows[r] + offset.
template <simd_detail::byte_product Product, class Arch, std::size_t Rows>
[[gnu::always_inline]] inline void add_step(simd_detail::byte_vector<Arch> left, simd_detail::byte_vector<Arch> right,
                                            const row_pointers<std::byte, Rows>& rows, std::size_t offset,
                                            simd_detail::int_vector<Arch> (&dots)[Rows][2]) noexcept {
  keep_in_register(left);
  keep_in_register(right);
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r) {
    std::uint32_t values;
    std::memcpy(&values, rows[r] + offset, sizeof values);
    // Of copies: elements of an array that an asm statement names stay in memory.
    auto to_left = simd_detail::add_products<Product, Arch>(dots[r][0], left, values),
         to_right = simd_detail::add_products<Product, Arch>(dots[r][1], right, values);
    keep_in_register(to_left); // or g++ 12 adds up all products first, in more registers than there are
    keep_in_register(to_right);
    dots[r][0] = to_left;
    dots[r][1] = to_right;
  }
}
} // namespace detail

} // namespace hmoe::backends::formats

#include <hmoe/core/macros_on.hpp>
