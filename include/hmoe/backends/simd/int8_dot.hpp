// SPDX-License-Identifier: MIT
#pragma once

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__)
#define HMOE_DETAIL_HAS_VNNI 1
#else
#define HMOE_DETAIL_HAS_VNNI 0
#endif

/// Sums of products of four bytes, the step of all quantised kernels. Exact in every form.
namespace hmoe::backends::simd_detail {

template <class Arch> using int_vector = xsimd::batch<std::int32_t, Arch>;
template <class Arch> using byte_vector = xsimd::batch<std::uint32_t, Arch>; ///< four bytes in each lane

/// The bytes of `four` (signed) at places 0 and 2, or 1 and 3, as two 16-bit numbers.
[[nodiscard]] inline std::uint32_t even_bytes(std::uint32_t four) noexcept {
  const auto low = static_cast<std::int8_t>(four), high = static_cast<std::int8_t>(four >> 16U);
  return static_cast<std::uint16_t>(low) | static_cast<std::uint32_t>(static_cast<std::uint16_t>(high)) << 16U;
}
[[nodiscard]] inline std::uint32_t odd_bytes(std::uint32_t four) noexcept { return even_bytes(four >> 8U); }

/// sums[lane] += Σ_{i<4} weights[lane].byte(i) · values.byte(i), weights unsigned and values signed. Vnni: by
/// vpdpbusd; the flags of the translation unit must have it.
template <bool Vnni, class Arch>
[[nodiscard, gnu::always_inline]] inline int_vector<Arch>
add_dot(const int_vector<Arch>& sums, const byte_vector<Arch>& weights, std::uint32_t values) noexcept {
  [[maybe_unused]] constexpr std::size_t n = int_vector<Arch>::size;
#if HMOE_DETAIL_HAS_VNNI
  if constexpr (Vnni && n == 16)
    return _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(static_cast<int>(values)));
#endif
#if defined(__AVX512BW__)
  if constexpr (n == 16) {
    const __m512i low = _mm512_set1_epi32(0x00ff00ff), w = weights;
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(w, low),
                                           _mm512_set1_epi32(static_cast<int>(even_bytes(values)))),
                  odd = _mm512_madd_epi16(_mm512_and_si512(_mm512_srli_epi32(w, 8), low),
                                          _mm512_set1_epi32(static_cast<int>(odd_bytes(values))));
    return _mm512_add_epi32(sums, _mm512_add_epi32(even, odd));
  }
#endif
#if defined(__AVX2__)
  if constexpr (n == 8) {
    const __m256i low = _mm256_set1_epi32(0x00ff00ff), w = weights;
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, low),
                                           _mm256_set1_epi32(static_cast<int>(even_bytes(values)))),
                  odd = _mm256_madd_epi16(_mm256_and_si256(_mm256_srli_epi32(w, 8), low),
                                          _mm256_set1_epi32(static_cast<int>(odd_bytes(values))));
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
  }
#endif
  const byte_vector<Arch> byte(0xffU);
  int_vector<Arch> result = sums;
  for (unsigned i = 0; i < 4; ++i)
    result += xsimd::bitwise_cast<int_vector<Arch>>((weights >> static_cast<int>(8 * i)) & byte) *
              int_vector<Arch>(static_cast<std::int8_t>(values >> (8 * i)));
  return result;
}

/// table[nibble] for each byte below 16; the table's entries are below 128.
template <class Arch>
[[nodiscard, gnu::always_inline]] inline byte_vector<Arch> look_up(const std::uint8_t (&table)[16],
                                                                   const byte_vector<Arch>& nibbles) noexcept {
  [[maybe_unused]] constexpr std::size_t n = byte_vector<Arch>::size;
#if defined(__AVX512BW__)
  if constexpr (n == 16)
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))),
                               nibbles);
#endif
#if defined(__AVX2__)
  if constexpr (n == 8)
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))),
                               nibbles);
#endif
  alignas(byte_vector<Arch>) std::uint32_t lanes[n];
  nibbles.store_aligned(lanes);
  for (std::uint32_t& lane : lanes) {
    const std::uint32_t four = lane;
    lane = 0;
    for (unsigned i = 0; i < 32; i += 8)
      lane |= std::uint32_t{table[four >> i & 15U]} << i;
  }
  return byte_vector<Arch>::load_aligned(lanes);
}

} // namespace hmoe::backends::simd_detail
