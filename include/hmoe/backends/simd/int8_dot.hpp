// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <cstdint>

// What the flags allow and no more: <immintrin.h> takes compilers half a second.
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSSE3__)
#include <tmmintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

/// 1 where the compiler's flags allow the instructions of byte_product, for the widest registers that they allow.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define HMOE_DETAIL_HAS_VNNI 1
#else
#define HMOE_DETAIL_HAS_VNNI 0
#endif
#if defined(__SSSE3__) && (!defined(__AVX__) || defined(__AVX2__)) && (!defined(__AVX512F__) || defined(__AVX512BW__))
#define HMOE_DETAIL_HAS_NARROW 1
#else
#define HMOE_DETAIL_HAS_NARROW 0
#endif

/// Sums of products of weights (unsigned bytes) and activations (signed bytes) in lanes of 32 bits, the step of all
/// quantised kernels. Exact in every form.
namespace hmoe::backends::simd_detail {

/// How many products an instruction takes, and what activations are stored as for it.
enum class byte_product {
  plain,  ///< bytes; integer products one by one
  pairs,  ///< 16 bits, in fours in the order 0 2 1 3; two products of 16 bits (pmaddwd), one by one without SSE2
  narrow, ///< bytes; four products, of weights up to 15: 16-bit sums hold a block of them (pmaddubsw, needs SSSE3)
  vnni,   ///< bytes; four products (vpdpbusd, needs AVX-512 VNNI)
};
/// The quickest by these flags: for weights up to 15 (narrow), for others (wide).
#if HMOE_DETAIL_HAS_VNNI
#define HMOE_DETAIL_NARROW_PRODUCT ::hmoe::backends::simd_detail::byte_product::vnni
#define HMOE_DETAIL_WIDE_PRODUCT ::hmoe::backends::simd_detail::byte_product::vnni
#elif defined(__SSE2__)
#define HMOE_DETAIL_NARROW_PRODUCT                                                                                     \
  (HMOE_DETAIL_HAS_NARROW ? ::hmoe::backends::simd_detail::byte_product::narrow                                        \
                          : ::hmoe::backends::simd_detail::byte_product::pairs)
#define HMOE_DETAIL_WIDE_PRODUCT ::hmoe::backends::simd_detail::byte_product::pairs
#else
#define HMOE_DETAIL_NARROW_PRODUCT ::hmoe::backends::simd_detail::byte_product::plain
#define HMOE_DETAIL_WIDE_PRODUCT ::hmoe::backends::simd_detail::byte_product::plain
#endif

template <class Arch> using int_vector = xsimd::batch<std::int32_t, Arch>;
template <class Arch> using byte_vector = xsimd::batch<std::uint32_t, Arch>; ///< four bytes in each lane

/// Σ_{i<2} a[lane].word(i) · b[lane].word(i), signed
template <class Arch>
[[nodiscard, gnu::always_inline]] inline int_vector<Arch> pairs(const byte_vector<Arch>& a,
                                                                const byte_vector<Arch>& b) noexcept {
  [[maybe_unused]] constexpr std::size_t n = int_vector<Arch>::size;
#if defined(__AVX512BW__)
  if constexpr (n == 16)
    return _mm512_madd_epi16(a, b);
#endif
#if defined(__AVX2__)
  if constexpr (n == 8)
    return _mm256_madd_epi16(a, b);
#endif
#if defined(__SSE2__)
  if constexpr (n == 4)
    return _mm_madd_epi16(a, b);
#endif
  const auto x = xsimd::bitwise_cast<int_vector<Arch>>(a), y = xsimd::bitwise_cast<int_vector<Arch>>(b);
  return (x >> 16) * (y >> 16) + ((x << 16) >> 16) * ((y << 16) >> 16);
}

/// sums + products: of four bytes in each lane (plain, vnni), of two words (pairs), or of four bytes into two words, as
/// which sums are read then (narrow).
template <byte_product Product, class Arch>
[[nodiscard, gnu::always_inline]] inline int_vector<Arch>
add_products(const int_vector<Arch>& sums, const byte_vector<Arch>& weights, std::uint32_t values) noexcept {
  [[maybe_unused]] constexpr std::size_t n = int_vector<Arch>::size;
  const byte_vector<Arch> all(values);
  if constexpr (Product == byte_product::pairs)
    return sums + pairs<Arch>(weights, all);
#if HMOE_DETAIL_HAS_VNNI
  if constexpr (Product == byte_product::vnni && n == 16)
    return _mm512_dpbusd_epi32(sums, weights, all);
  if constexpr (Product == byte_product::vnni && n == 8)
    return _mm256_dpbusd_epi32(sums, weights, all);
  if constexpr (Product == byte_product::vnni && n == 4)
    return _mm_dpbusd_epi32(sums, weights, all);
#endif
#if defined(__AVX512BW__)
  if constexpr (Product == byte_product::narrow && n == 16)
    return _mm512_add_epi16(sums, _mm512_maddubs_epi16(weights, all));
#endif
#if defined(__AVX2__)
  if constexpr (Product == byte_product::narrow && n == 8)
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, all));
#endif
#if HMOE_DETAIL_HAS_NARROW
  if constexpr (Product == byte_product::narrow && n == 4)
    return _mm_add_epi16(sums, _mm_maddubs_epi16(weights, all));
#endif
  static_assert(Product != byte_product::narrow || (HMOE_DETAIL_HAS_NARROW == 1 && n <= 16),
                "hmoe: byte_product::narrow needs SSSE3, AVX2 or AVX-512 BW, as wide as Arch");
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

#include <hmoe/core/macros_on.hpp>
