// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

namespace hmoe::backends::formats {

/// Activations beside quantised weights: Size signed numbers of 8 bits, x ≈ scale · q with scale = max|x|/127, stored
/// in Code; and what a block adds to a sum whatever the weights: −zero · Σ q, or scale · Σ q to be multiplied by an
/// offset.
template <class Code, class Constant, std::size_t Size> struct activation_block {
  Code codes[Size];
  float scale;
  Constant constant;
};

namespace detail {
template <class Arch> [[nodiscard]] inline float largest_lane(const xsimd::batch<float, Arch>& values) noexcept {
  constexpr std::size_t n = xsimd::batch<float, Arch>::size;
#if defined(__AVX512F__)
  if constexpr (n == 16)
    return _mm512_reduce_max_ps(values);
#endif
  alignas(memory_alignment) float lanes[n];
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

/// Codes and scale of Size activations; returns Σ q. Codes of 16 bits are in fours in the order 0 2 1 3. If one is not
/// finite, the scale is NaN, which spreads to the sums.
template <class Arch, class Code, class Constant, std::size_t Size>
std::int32_t encode_activations(const float* values, activation_block<Code, Constant, Size>& to) noexcept {
  using vec = xsimd::batch<float, Arch>;
  using ints = simd_detail::int_vector<Arch>;
  vec largest(0.0F);
  auto all_finite = vec(0.0F) == vec(0.0F);
  for (std::size_t i = 0; i < Size; i += vec::size) {
    const vec magnitude = xsimd::abs(vec::load_unaligned(values + i));
    largest = xsimd::max(largest, magnitude);
    all_finite = all_finite & (magnitude <= vec(std::numeric_limits<float>::max()));
  }
  const bool finite = xsimd::all(all_finite);
  const float most = detail::largest_lane<Arch>(largest);
  to.scale = finite ? most / 127 : std::numeric_limits<float>::quiet_NaN();
  const vec inverse(finite && most > 0 ? 127 / most : 0.0F);
  ints sums(0);
  for (std::size_t i = 0; i < Size; i += vec::size) {
    const ints rounded = finite ? xsimd::nearbyint_as_int(vec::load_unaligned(values + i) * inverse) : ints(0);
    sums += rounded;
    detail::store_narrow<Arch>(rounded, to.codes + i);
  }
  if constexpr (sizeof(Code) == 2)
    for (std::size_t i = 0; i < Size; i += 4)
      std::swap(to.codes[i + 1], to.codes[i + 2]);
  return detail::sum_of_lanes<Arch>(sums);
}

/// dots[r] += the products of four bytes (or two words) in each lane of left and right, and those of row r: its
/// activations for this step are `step` bytes behind those of row r − 1.
template <simd_detail::byte_product Product, class Arch, std::size_t Rows>
[[gnu::always_inline]] inline void add_step(simd_detail::byte_vector<Arch> left, simd_detail::byte_vector<Arch> right,
                                            const std::byte* activations, std::size_t step,
                                            simd_detail::int_vector<Arch> (&dots)[Rows][2]) noexcept {
  keep_in_register(left);
  keep_in_register(right);
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r) {
    std::uint32_t values;
    std::memcpy(&values, activations + r * step, sizeof values);
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
