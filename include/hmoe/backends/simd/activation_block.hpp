// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/core/buffer.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
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
} // namespace detail

} // namespace hmoe::backends::formats
