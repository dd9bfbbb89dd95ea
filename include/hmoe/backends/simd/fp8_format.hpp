// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/fp8_block.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace hmoe::backends::formats {

/// How E4M3 codes become numbers that are multiplied. All give the same values.
enum class fp8_decoding {
  table,          ///< floats, one by one
  halves,         ///< binary16 by shifts, then the instruction that widens it (F16C with AVX2, AVX-512 BW, 64-bit ARM)
  pairs,          ///< bfloat16 by halves of bytes (AVX-512 BW), for vdpbf16ps
  table_of_pairs, ///< bfloat16 by two tables of 128 bytes (AVX-512 VBMI), for vdpbf16ps
};
#if HMOE_DETAIL_HAS_BF16_DOT && defined(__AVX512VBMI__)
#define HMOE_DETAIL_FP8_DECODING ::hmoe::backends::formats::fp8_decoding::table_of_pairs
#elif HMOE_DETAIL_HAS_BF16_DOT && defined(__AVX512BW__)
#define HMOE_DETAIL_FP8_DECODING ::hmoe::backends::formats::fp8_decoding::pairs
#elif defined(__AVX512BW__) || (defined(__AVX2__) && defined(__F16C__)) || defined(__aarch64__)
#define HMOE_DETAIL_FP8_DECODING ::hmoe::backends::formats::fp8_decoding::halves
#else
#define HMOE_DETAIL_FP8_DECODING ::hmoe::backends::formats::fp8_decoding::table
#endif

namespace detail {

/// Numbers of E4M3 codes.
inline constexpr std::array<float, 256> e4m3_values = [] {
  std::array<float, 256> values{};
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = float_of_e4m3(static_cast<std::uint8_t>(i));
  return values;
}();

/// Two steps of k of a panel: the numbers of its left and its right columns at the even and at the odd k, each divided
/// by `unit`.
template <class V> struct fp8_steps {
  V even[2], odd[2];
};

/// Whether there is an instruction for fp8_decoding::halves in registers of Arch; the table does it elsewhere.
template <class Arch> [[nodiscard]] constexpr bool widens_halves() noexcept {
#if defined(__AVX512BW__)
  if (lanes<Arch> == 16)
    return true;
#endif
#if defined(__AVX2__) && (defined(__F16C__) || defined(__AVX512F__))
  if (lanes<Arch> == 8)
    return true;
#endif
#if defined(__aarch64__)
  if (lanes<Arch> == 4)
    return true;
#endif
  return false;
}
/// An E4M3 code in the upper byte of a word is, shifted by one bit, the binary16 number that is 1/256 of it, subnormal
/// ones included.
template <fp8_decoding Decoding, class Arch>
inline constexpr float fp8_unit = Decoding == fp8_decoding::halves && widens_halves<Arch>() ? 256.0F : 1.0F;

template <fp8_decoding Decoding, class Arch>
[[nodiscard, gnu::always_inline]] inline fp8_steps<xsimd::batch<float, Arch>>
decode_fp8(const std::uint8_t* codes) noexcept {
  using vec = xsimd::batch<float, Arch>;
  constexpr std::size_t n = vec::size;
  if constexpr (fp8_unit<Decoding, Arch> != 1) {
#if defined(__AVX512BW__)
    if constexpr (n == 16) {
      const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), mask = _mm512_set1_epi16(-0x4080);
      const __m512i words = _mm512_permutexvar_epi64(order, _mm512_load_si512(codes));
      const __m512i even = _mm512_and_si512(_mm512_srai_epi16(_mm512_slli_epi16(words, 8), 1), mask),
                    odd = _mm512_and_si512(_mm512_srai_epi16(words, 1), mask);
      const auto widen = [](__m512i halves) {
        return std::array{vec(_mm512_cvtph_ps(_mm512_castsi512_si256(halves))),
                          vec(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1)))};
      };
      const auto e = widen(even), o = widen(odd);
      return {{e[0], e[1]}, {o[0], o[1]}};
    }
#endif
#if defined(__AVX2__) && (defined(__F16C__) || defined(__AVX512F__))
    if constexpr (n == 8) {
      const __m256i mask = _mm256_set1_epi16(-0x4080);
      const __m256i words = _mm256_permute4x64_epi64(_mm256_load_si256(reinterpret_cast<const __m256i*>(codes)), 0xd8);
      const __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 1), mask),
                    odd = _mm256_and_si256(_mm256_srai_epi16(words, 1), mask);
      const auto widen = [](__m256i halves) {
        return std::array{vec(_mm256_cvtph_ps(_mm256_castsi256_si128(halves))),
                          vec(_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)))};
      };
      const auto e = widen(even), o = widen(odd);
      return {{e[0], e[1]}, {o[0], o[1]}};
    }
#endif
#if defined(__aarch64__)
    if constexpr (n == 4) {
      const int16x8_t mask = vdupq_n_s16(-0x4080), words = vreinterpretq_s16_u8(vld1q_u8(codes));
      const int16x8_t even = vandq_s16(vshrq_n_s16(vshlq_n_s16(words, 8), 1), mask),
                      odd = vandq_s16(vshrq_n_s16(words, 1), mask);
      const auto widen = [](int16x4_t halves) { return vec(vcvt_f32_f16(vreinterpret_f16_s16(halves))); };
      return {{widen(vget_low_s16(even)), widen(vget_high_s16(even))},
              {widen(vget_low_s16(odd)), widen(vget_high_s16(odd))}};
    }
#endif
  }
  alignas(memory_alignment) float values[2][2][n];
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t side = 0; side < 2; ++side)
      for (std::size_t k = 0; k < 2; ++k)
        values[k][side][i] = e4m3_values[codes[i / 4 * 16 + side * 8 + i % 4 * 2 + k]];
  const auto load = [&](std::size_t k, std::size_t side) { return vec::load_aligned(values[k][side]); };
  return {{load(0, 0), load(0, 1)}, {load(1, 0), load(1, 1)}};
}

#if HMOE_DETAIL_HAS_BF16_DOT && defined(__AVX512BW__)
/// Lower and upper bytes of the numbers of codes 0 … 127 as bfloat16.
struct alignas(memory_alignment) e4m3_bytes {
  std::uint8_t low[128], high[128];
};
inline constexpr e4m3_bytes e4m3_table = [] {
  e4m3_bytes table{};
  for (std::size_t i = 0; i < 128; ++i) {
    const auto word = __builtin_bit_cast(std::uint32_t, e4m3_values[i]);
    table.low[i] = static_cast<std::uint8_t>(word >> 16U);
    table.high[i] = static_cast<std::uint8_t>(word >> 24U);
  }
  return table;
}();
struct fp8_pairs {
  __m512i left, right; ///< columns; in a lane the numbers of two steps of k, as bfloat16
};
template <fp8_decoding Decoding>
[[nodiscard, gnu::always_inline]] inline fp8_pairs decode_fp8_pairs(const std::uint8_t* codes) noexcept {
  const __m512i all = _mm512_load_si512(codes);
  __m512i low, high; // bytes of the magnitudes
  if constexpr (Decoding == fp8_decoding::table_of_pairs) {
#if defined(__AVX512VBMI__)
    const auto table = [](const std::uint8_t* from) { return _mm512_load_si512(from); };
    low = _mm512_permutex2var_epi8(table(e4m3_table.low), all, table(e4m3_table.low + 64));
    high = _mm512_permutex2var_epi8(table(e4m3_table.high), all, table(e4m3_table.high + 64));
#endif
  } else {
    // Numbers from 2^-6 on are 120 · 2^7 + code · 2^4; those below, whose upper bits are 0, stand in the table.
    const auto sixteen = [](const std::uint8_t* from) {
      return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
    };
    const __m512i lower_half = _mm512_and_si512(all, _mm512_set1_epi8(0x0f)),
                  upper_half = _mm512_and_si512(_mm512_srli_epi16(all, 4), _mm512_set1_epi8(0x07));
    const __mmask64 below = _mm512_testn_epi8_mask(all, _mm512_set1_epi8(0x78));
    low = _mm512_mask_shuffle_epi8(_mm512_slli_epi16(lower_half, 4), below, sixteen(e4m3_table.low), lower_half);
    high = _mm512_mask_shuffle_epi8(_mm512_add_epi8(upper_half, _mm512_set1_epi8(0x3c)), below,
                                    sixteen(e4m3_table.high), lower_half);
  }
  high = _mm512_ternarylogic_epi32(high, all, _mm512_set1_epi8(-128), 0xf8); // | sign
  return {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
}
#endif

} // namespace detail

/// FP8: weights as E4M3 numbers with a float scale for 128 of them along k, w = s·v (core/fp8_block.hpp has the error).
/// Checkpoints with squares of 128 × 128 are taken over as they are. Activations are float, or bfloat16 where vdpbf16ps
/// multiplies. out = Σ_b s_b Σ_{k in b} v_k x_k over blocks b of 128, each inner sum one chain in ascending k.
/// A panel is read from front to back: the scales of a block stand before its codes. Two steps of k lie together: of
/// every four columns the codes of the left ones (k, k + 1 of each), then those of the right ones.
template <fp8_decoding Decoding> struct basic_fp8 {
  static constexpr bool in_pairs = Decoding == fp8_decoding::pairs || Decoding == fp8_decoding::table_of_pairs;
  using rows_as = std::conditional_t<in_pairs, bf16, basic_bf16<false>>;
  using row_value = typename rows_as::row_value;
  using block_type = fp8_block;
  static constexpr std::string_view name = "fp8";
  static constexpr float largest_weight = std::numeric_limits<float>::max();
  static constexpr std::size_t encoded_together = 1;

  [[nodiscard]] static std::size_t row_length(std::size_t depth) noexcept { return rows_as::row_length(depth); }
  [[nodiscard]] static std::size_t row_offset(std::size_t k) noexcept { return rows_as::row_offset(k); }
  template <class Arch> static void encode(const float* from, std::size_t depth, row_value* to) noexcept {
    rows_as::template encode<Arch>(from, depth, to);
  }

  template <class Arch> [[nodiscard]] static constexpr std::size_t panel_bytes(std::size_t depth) noexcept {
    return aligned_bytes<std::byte>(blocks(depth) * scale_bytes<Arch> + (depth + 1) / 2 * step_bytes<Arch>);
  }
  template <class Arch, class Weight> static void pack(std::size_t depth, Weight weight, std::byte* to) noexcept {
    pack_blocks<Arch>(
        depth,
        [depth, &weight](std::size_t b, std::size_t c) {
          float values[fp8_block::size] = {};
          for (std::size_t i = 0; i < std::min(fp8_block::size, depth - b * fp8_block::size); ++i)
            values[i] = weight(b * fp8_block::size + i, c);
          return fp8_block::quantize(values);
        },
        to);
  }
  /// Writes a panel from block(b, column), whose weights are those of k from 128 b on.
  template <class Arch, class BlockAt>
  static void pack_blocks(std::size_t depth, BlockAt block_at, std::byte* to) noexcept {
    constexpr std::size_t n = detail::lanes<Arch>;
    std::fill_n(to, panel_bytes<Arch>(depth), std::byte{0});
    for (std::size_t b = 0; b < blocks(depth); ++b) {
      const std::size_t count = std::min(fp8_block::size, depth - b * fp8_block::size);
      std::byte* codes = to + scale_bytes<Arch>;
      for (std::size_t c = 0; c < 2 * n; ++c) {
        const fp8_block block = block_at(b, c);
        const float scale = block.scale();
        std::memcpy(to + c * sizeof scale, &scale, sizeof scale);
        const std::size_t place = c % n / 4 * 16 + c / n * 8 + c % 4 * 2;
        for (std::size_t i = 0; i < count; ++i)
          codes[i / 2 * step_bytes<Arch> + place + i % 2] = std::byte{block.code(i)};
      }
      to = codes + fp8_block::size / 2 * step_bytes<Arch>;
    }
  }

  template <std::size_t Rows, std::size_t Panels, class Arch>
    requires(Panels == 1)
  static void multiply(std::size_t depth, const row_value* rows, std::size_t step, const std::byte* panel,
                       detail::read_ahead ahead, float* tile) noexcept {
    if constexpr (in_pairs)
      rows_as::with_rows(rows, step, [&](const auto* held, std::size_t apart) {
        multiply_rows<Rows, Arch>(depth, held, apart, panel, ahead, tile);
      });
    else
      multiply_rows<Rows, Arch>(depth, rows, step, panel, ahead, tile);
  }

private:
  template <std::size_t Rows, class Arch, class Row>
  static void multiply_rows(std::size_t depth, const Row* rows, std::size_t step, const std::byte* panel,
                            detail::read_ahead ahead, float* tile) noexcept {
    using vec = xsimd::batch<float, Arch>;
    constexpr std::size_t n = vec::size;
    detail::row_pointers<Row, Rows> activations(rows, step);
    const auto* codes = reinterpret_cast<const std::uint8_t*>(panel);
    detail::clear_tile<Rows, vec>(tile);
    for (std::size_t first = 0; first < depth; first += fp8_block::size) {
      const auto* scales = reinterpret_cast<const float*>(codes);
      codes += scale_bytes<Arch>;
      ahead.template advance<scale_bytes<Arch>, 1, 2>();
      vec sums[Rows][2];
      detail::clear(sums);
      const std::size_t end = std::min(depth, first + fp8_block::size);
      for (std::size_t k = first; k < end; k += 2, codes += step_bytes<Arch>, activations.advance(2)) {
        ahead.template advance<step_bytes<Arch>, 1, 2>();
        if constexpr (in_pairs) {
#if HMOE_DETAIL_HAS_BF16_DOT && defined(__AVX512BW__)
          const auto [left, right] = detail::decode_fp8_pairs<Decoding>(codes);
          detail::add_pairs<Rows>(left, right, activations, sums);
#endif
        } else {
          const auto steps = detail::decode_fp8<Decoding, Arch>(codes);
          detail::add_products<Rows>(steps.even[0], steps.even[1], activations, 0, sums);
          detail::add_products<Rows>(steps.odd[0], steps.odd[1], activations, 1, sums);
        }
      }
      constexpr float unit = detail::fp8_unit<Decoding, Arch>;
      const vec left = vec::load_aligned(scales), right = vec::load_aligned(scales + n);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r) {
        float* to = tile + r * 2 * n;
        if constexpr (unit != 1) {
          sums[r][0] *= vec(unit);
          sums[r][1] *= vec(unit);
        }
        xsimd::fma(sums[r][0], left, vec::load_aligned(to)).store_aligned(to);
        xsimd::fma(sums[r][1], right, vec::load_aligned(to + n)).store_aligned(to + n);
      }
    }
  }

  template <class Arch> static constexpr std::size_t scale_bytes = 2 * detail::lanes<Arch> * sizeof(float);
  template <class Arch> static constexpr std::size_t step_bytes = 4 * detail::lanes<Arch>;
  [[nodiscard]] static constexpr std::size_t blocks(std::size_t depth) noexcept {
    return (depth + fp8_block::size - 1) / fp8_block::size;
  }
};

/// 8.25 bits per weight (another type for other flags, as bf16).
using fp8 = basic_fp8<HMOE_DETAIL_FP8_DECODING>;

} // namespace hmoe::backends::formats

#include <hmoe/core/macros_on.hpp>
