// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/cpu_maker.hpp>
#include <hmoe/backends/simd/row_pointers.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/scalar.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#define HMOE_DETAIL_HAS_F16 1
#else
#define HMOE_DETAIL_HAS_F16 0
#endif
#if defined(__AVX512BF16__)
#define HMOE_DETAIL_HAS_BF16_DOT 1
#else
#define HMOE_DETAIL_HAS_BF16_DOT 0
#endif

/// How packed weights are stored and multiplied. A *panel* holds 2·n columns of a weight matrix (n: floats in a
/// register of Arch), step after step of k, so that a kernel reads it from front to back. A format has
///   name                           of what is stored, for files (packed_layout); formats that differ in
///                                  instructions only have the same
///   row_value                      what activations are turned into before they are multiplied
///   encoded_together               floats that are encoded at once at least: as many as share a scale, else 1
///   row_length(depth)              row_values of an encoded row of `depth` floats
///   row_offset(k)                  where k, a multiple of encoded_together, begins in a row
///
///   encode<Arch>(from, depth, to)  turns `depth` floats into a row, or into the part of one that begins at row_offset
///
///   encodes_rows                   optional; true: a row is encoded at once, encode<Arch>(from, depth, to, factor) of
///                                  `factor` times the floats
///
///   largest_weight                 the greatest magnitude that it holds
///   panel_bytes<Arch>(depth)       bytes of a panel, a multiple of the alignment
///
///   pack<Arch>(depth, weight, to)  writes all bytes of a panel from weight(k, column), column < 2·n
///
///   block_type, pack_blocks<Arch>(depth, block, to)
///                                  where weights lie in blocks of 32: writes a panel from block(b, column) as it is
///
///   multiply<Rows, Panels, Arch>(depth, rows, step, panel, ahead, tile)
///                                  tile[p][r][c] = Σ_k row_r(k) · panel_p(k, c) of panels one after another, read side
///                                  by side; `step` row_values lie between rows; prefetches what `ahead` says
///                                  (detail::read_ahead)
///
/// Every sum is one chain in ascending k, so its bits depend neither on Rows and Panels nor on the columns beside it.
namespace hmoe::backends::formats {

namespace detail {
template <class Arch> inline constexpr std::size_t lanes = xsimd::batch<float, Arch>::size;

/// Whether rows are encoded only when all of their values are there.
template <class Format>
inline constexpr bool encodes_rows = [] {
  if constexpr (requires { Format::encodes_rows; })
    return Format::encodes_rows;
  else
    return false;
}();

template <class V, std::size_t Rows> [[gnu::always_inline]] inline void clear(V (&sums)[Rows][2]) noexcept {
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r)
    sums[r][0] = sums[r][1] = V(0.0F);
}
template <class V, std::size_t Rows>
[[gnu::always_inline]] inline void store(const V (&sums)[Rows][2], float* tile) noexcept {
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r, tile += 2 * V::size) {
    sums[r][0].store_aligned(tile);
    sums[r][1].store_aligned(tile + V::size);
  }
}

/// Rows of activations start on a cache line, and never a multiple of 1 KB apart: twelve of them are read side by side
/// and would fall into one set of the L1 cache.
template <class Value> [[nodiscard]] constexpr std::size_t padded_row(std::size_t values) noexcept {
  const std::size_t bytes = aligned_bytes<Value>(values);
  return (bytes % 1024 == 0 ? bytes + memory_alignment : bytes) / sizeof(Value);
}

/// What is asked for from memory while a panel is multiplied: `step` bytes for every 64 of the panel.
struct read_ahead {
  const std::byte* from;
  std::size_t step;

  /// Beside `Bytes` of each of `Panels`, `apart` bytes from one another; Locality: the nearest cache that should have
  /// it, 3 for L1 and 2 for L2.
  template <std::size_t Bytes, std::size_t Panels, int Locality>
  [[gnu::always_inline]] void advance(std::size_t apart = 0) noexcept {
    constexpr std::size_t line = memory_alignment;
    for (std::size_t i = 0; i < Bytes; i += line) {
      for (std::size_t p = 0; p < Panels; ++p)
        __builtin_prefetch(from + p * apart, 0, Locality); // beyond the end it does no harm
      from += Bytes < line ? step * Bytes / line : step;
    }
  }
  template <std::size_t Bytes, std::size_t Panels>
  [[gnu::always_inline]] void advance(std::size_t apart, bool into_l2) noexcept {
    into_l2 ? advance<Bytes, Panels, 2>(apart) : advance<Bytes, Panels, 3>(apart);
  }
};

/// Where kernels of floats want what they ask for: in L2 on Intel's CPUs with AVX-512 (tile.hpp has figures), else in
/// L1.
template <class Arch> [[nodiscard]] inline bool asks_for_l2() noexcept {
  return lanes<Arch> == 16 && simd_detail::on_intel();
}

/// Keeps a value that many multiply-adds share in its register: g++ 12 reads weights from memory again in each of them
/// where it finds that cheap (4 rows on AVX2, tuned for Zen 3: 0.64 of the peak, with this 0.98).
template <class V> [[gnu::always_inline]] inline void keep_in_register([[maybe_unused]] V& value) noexcept {
#if defined(__SSE2__)
  asm("" : "+v"(value.data));
#elif defined(__aarch64__)
  asm("" : "+w"(value.data));
#endif
}

/// Zeros in Rows rows of a tile. (std::fill_n would be one instruction, rep stos, which takes longer to begin.)
template <std::size_t Rows, class V> [[gnu::always_inline]] inline void clear_tile(float* tile) noexcept {
  V zero(0.0F);
  keep_in_register(zero);
  for (std::size_t i = 0; i < 2 * Rows; ++i)
    zero.store_aligned(tile + i * V::size);
}

/// sums[r] += rows[r][k] · (left, right)
template <std::size_t Rows, class V>
[[gnu::always_inline]] inline void add_products(V left, V right, const row_pointers<float, Rows>& rows, std::size_t k,
                                                V (*sums)[2]) noexcept {
  keep_in_register(left);
  keep_in_register(right);
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r) {
    const V value(rows[r][k]);
    sums[r][0] = xsimd::fma(value, left, sums[r][0]);
    sums[r][1] = xsimd::fma(value, right, sums[r][1]);
  }
}

/// A register of floats from memory; Hardware: F16C or AVX-512 widens.
template <class Arch, bool Hardware>
[[nodiscard, gnu::always_inline]] inline xsimd::batch<float, Arch> load(const float* from) noexcept {
  return xsimd::batch<float, Arch>::load_aligned(from);
}
template <class Arch, bool Hardware>
[[nodiscard, gnu::always_inline]] inline xsimd::batch<float, Arch> load(const half* from) noexcept {
  constexpr std::size_t n = lanes<Arch>;
#if defined(__AVX512F__)
  if constexpr (Hardware && n == 16)
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
#endif
#if defined(__F16C__)
  if constexpr (Hardware && n == 8)
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
#endif
  alignas(memory_alignment) float values[n];
  for (std::size_t i = 0; i < n; ++i)
    values[i] = static_cast<float>(from[i]);
  return xsimd::batch<float, Arch>::load_aligned(values);
}
} // namespace detail

/// Weights of type Stored, step after step, widened to float in registers. Hardware: whether F16C or AVX-512 widens.
template <class Stored, bool Hardware = true> struct widened {
  using row_value = float;
  static constexpr std::string_view name = std::is_same_v<Stored, half> ? "f16" : "f32";
  static constexpr float largest_weight = std::is_same_v<Stored, half> ? 65504.0F : std::numeric_limits<float>::max();

  static constexpr std::size_t encoded_together = 1;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return detail::padded_row<float>(depth);
  }
  [[nodiscard]] static constexpr std::size_t row_offset(std::size_t k) noexcept { return k; }
  template <class Arch> static void encode(const float* from, std::size_t depth, float* to) noexcept {
    using vec = xsimd::batch<float, Arch>;
    std::size_t k = 0;
    for (; k + vec::size <= depth; k += vec::size) // a call of memmove for one register takes longer
      vec::load_unaligned(from + k).store_unaligned(to + k);
    std::copy_n(from + k, depth - k, to + k);
  }

  template <class Arch> [[nodiscard]] static constexpr std::size_t panel_bytes(std::size_t depth) noexcept {
    return aligned_bytes<Stored>(depth * 2 * detail::lanes<Arch>);
  }
  template <class Arch, class Weight> static void pack(std::size_t depth, Weight weight, std::byte* to) noexcept {
    auto* values = reinterpret_cast<Stored*>(to);
    for (std::size_t k = 0; k < depth; ++k)
      for (std::size_t c = 0; c < 2 * detail::lanes<Arch>; ++c)
        *values++ = Stored(weight(k, c));
    std::fill(values, reinterpret_cast<Stored*>(to + panel_bytes<Arch>(depth)), Stored(0.0F));
  }
  template <std::size_t Rows, std::size_t Panels, class Arch>
  static void multiply(std::size_t depth, const float* rows, std::size_t step, const std::byte* panel,
                       detail::read_ahead ahead, float* tile) noexcept {
    using vec = xsimd::batch<float, Arch>;
    vec sums[Panels * Rows][2];
    detail::clear(sums);
    detail::row_pointers<float, Rows> activations(rows, step);
    const auto* weights = reinterpret_cast<const Stored*>(panel);
    const std::size_t apart = panel_bytes<Arch>(depth);
    const bool into_l2 = detail::asks_for_l2<Arch>();
    for (std::size_t k = 0; k < depth; ++k, weights += 2 * vec::size, activations.advance(1)) {
      ahead.template advance<2 * vec::size * sizeof(Stored), Panels>(apart, into_l2);
#pragma GCC unroll 2
      for (std::size_t p = 0; p < Panels; ++p) {
        const Stored* from = weights + p * (apart / sizeof(Stored));
        detail::add_products<Rows>(detail::load<Arch, Hardware>(from), detail::load<Arch, Hardware>(from + vec::size),
                                   activations, 0, sums + p * Rows);
      }
    }
    detail::store(sums, tile);
  }
};

/// Weights as they are: 4 bytes each.
using f32 = widened<float>;
/// IEEE half precision: 2 bytes each. (Flags make another type of it, so translation units with different flags can
/// be linked.)
using f16 = widened<half, HMOE_DETAIL_HAS_F16 == 1>;

namespace detail {
#if HMOE_DETAIL_HAS_BF16_DOT
/// Sixteen floats rounded as bfloat16's constructor does, in the lower halves of the lanes, in integers: vcvtneps2bf16
/// would make 0 of subnormal numbers.
[[nodiscard, gnu::always_inline]] inline __m512i round_16(const float* from) noexcept {
  const __m512 values = _mm512_loadu_ps(from);
  const __m512i word = _mm512_castps_si512(values), upper = _mm512_srli_epi32(word, 16);
  const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(word, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, is_nan, upper, _mm512_set1_epi32(0x40));
}
[[gnu::always_inline]] inline void round_16(const float* from, bfloat16* to) noexcept {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(round_16(from)));
}
[[gnu::always_inline]] inline void round_16(const float* from, float* to) noexcept {
  _mm512_storeu_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32(round_16(from), 16)));
}
/// sums[r] += the products of the first two values of rows[r] with the pairs of (left, right)
template <std::size_t Rows, class V>
[[gnu::always_inline]] inline void add_pairs(__m512i left, __m512i right, const row_pointers<bfloat16, Rows>& rows,
                                             V (*sums)[2]) noexcept {
  static_assert(V::size == 16, "hmoe: the bfloat16 dot product is for AVX-512: use basic_bf16<false>, or basic_fp8 "
                               "with another decoding");
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r) {
    std::uint32_t pair;
    std::memcpy(&pair, rows[r], sizeof pair);
    const auto value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair)));
    sums[r][0] = _mm512_dpbf16_ps(sums[r][0], value, reinterpret_cast<__m512bh>(left));
    sums[r][1] = _mm512_dpbf16_ps(sums[r][1], value, reinterpret_cast<__m512bh>(right));
  }
}
#endif
/// to = `count` floats rounded to bfloat16; Value is that or float.
template <class Value> void round_values(const float* from, std::size_t count, Value* to) noexcept {
  std::size_t i = 0;
#if HMOE_DETAIL_HAS_BF16_DOT
  for (; i + 16 <= count; i += 16)
    round_16(from + i, to + i);
#endif
  for (; i < count; ++i)
    to[i] = static_cast<Value>(bfloat16(from[i]));
}
/// The same in floats, with the bits of vdpbf16ps but for subnormal numbers, which that makes 0: upper halves come
/// first.
template <std::size_t Rows, class V>
[[gnu::always_inline]] inline void add_pairs(xsimd::batch<std::uint32_t, typename V::arch_type> left,
                                             xsimd::batch<std::uint32_t, typename V::arch_type> right,
                                             const row_pointers<float, Rows>& rows, V (*sums)[2]) noexcept {
  const xsimd::batch<std::uint32_t, typename V::arch_type> upper(0xffff0000U);
  add_products<Rows>(xsimd::bitwise_cast<V>(left & upper), xsimd::bitwise_cast<V>(right & upper), rows, 1, sums);
  add_products<Rows>(xsimd::bitwise_cast<V>(left << 16), xsimd::bitwise_cast<V>(right << 16), rows, 0, sums);
}
} // namespace detail

/// Weights of 2 bytes. Lane i of a register holds those of k (lower half) and k + 1 (upper half) of column i, what
/// vdpbf16ps takes. With Rounds the activations are rounded to bfloat16 as well, and the instruction multiplies them,
/// or where they are held as floats, multiply-adds of these; without, activations are not rounded. Weights are widened
/// (exactly) for multiply-adds.
template <bool Rounds, class Row = std::conditional_t<Rounds, bfloat16, float>> struct basic_bf16 {
  using row_value = Row;
  static constexpr std::string_view name = "bf16";
  static constexpr float largest_weight = 0x1.fep127F;

  static constexpr std::size_t encoded_together = 1;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return detail::padded_row<row_value>(depth + depth % 2);
  }
  [[nodiscard]] static constexpr std::size_t row_offset(std::size_t k) noexcept { return k; }
  template <class Arch> static void encode(const float* from, std::size_t depth, row_value* to) noexcept {
    if constexpr (Rounds)
      detail::round_values(from, depth, to);
    else
      std::copy_n(from, depth, to);
    if (depth % 2 != 0)
      to[depth] = row_value(0.0F);
  }

  template <class Arch> [[nodiscard]] static constexpr std::size_t panel_bytes(std::size_t depth) noexcept {
    return aligned_bytes<bfloat16>((depth + depth % 2) * 2 * detail::lanes<Arch>);
  }
  template <class Arch, class Weight> static void pack(std::size_t depth, Weight weight, std::byte* to) noexcept {
    auto* values = reinterpret_cast<bfloat16*>(to);
    for (std::size_t k = 0; k < depth; k += 2)
      for (std::size_t c = 0; c < 2 * detail::lanes<Arch>; ++c) {
        *values++ = bfloat16(weight(k, c));
        *values++ = k + 1 < depth ? bfloat16(weight(k + 1, c)) : bfloat16(0.0F);
      }
    std::fill(values, reinterpret_cast<bfloat16*>(to + panel_bytes<Arch>(depth)), bfloat16(0.0F));
  }
  template <std::size_t Rows, std::size_t Panels, class Arch>
  static void multiply(std::size_t depth, const row_value* rows, std::size_t step, const std::byte* panel,
                       detail::read_ahead ahead, float* tile) noexcept {
    using vec = xsimd::batch<float, Arch>;
    using bits = xsimd::batch<std::uint32_t, Arch>;
    vec sums[Panels * Rows][2];
    detail::clear(sums);
    detail::row_pointers<row_value, Rows> activations(rows, step);
    const auto* weights = reinterpret_cast<const std::uint32_t*>(panel);
    const std::size_t apart = panel_bytes<Arch>(depth);
    const bool into_l2 = detail::asks_for_l2<Arch>();
    for (std::size_t k = 0; k < depth; k += 2, weights += 2 * vec::size, activations.advance(2)) {
      ahead.template advance<2 * vec::size * sizeof(*weights), Panels>(apart, into_l2);
#pragma GCC unroll 2
      for (std::size_t p = 0; p < Panels; ++p) {
        const std::uint32_t* from = weights + p * (apart / sizeof(*weights));
        const bits left = bits::load_aligned(from), right = bits::load_aligned(from + vec::size);
        if constexpr (Rounds) {
          detail::add_pairs<Rows>(left, right, activations, sums + p * Rows);
        } else {
          // One half after the other: the weights of both at once and all sums do not fit 16 registers.
          detail::add_products<Rows>(xsimd::bitwise_cast<vec>(left << 16), xsimd::bitwise_cast<vec>(right << 16),
                                     activations, 0, sums + p * Rows);
          const bits upper(0xffff0000U);
          detail::add_products<Rows>(xsimd::bitwise_cast<vec>(bits::load_aligned(from) & upper),
                                     xsimd::bitwise_cast<vec>(bits::load_aligned(from + vec::size) & upper),
                                     activations, 1, sums + p * Rows);
        }
      }
    }
    detail::store(sums, tile);
  }
};

#if HMOE_DETAIL_HAS_BF16_DOT
/// Rounded activations, multiplied in the quicker way on the CPU that runs this. AMD's Zen 4 begins a vdpbf16ps in each
/// cycle, as it does multiply-adds of floats; Intel's (Sapphire Rapids) one in two cycles, and four multiply-adds in
/// that time, so rows hold floats there.
struct quickest_bf16 : basic_bf16<true> {
  using in_floats = basic_bf16<true, float>;

  [[nodiscard]] static std::size_t row_length(std::size_t depth) noexcept {
    return in_pairs() ? basic_bf16<true>::row_length(depth) : 2 * in_floats::row_length(depth);
  }
  [[nodiscard]] static std::size_t row_offset(std::size_t k) noexcept { return in_pairs() ? k : 2 * k; }
  template <class Arch> static void encode(const float* from, std::size_t depth, bfloat16* to) noexcept {
    if (in_pairs())
      basic_bf16<true>::encode<Arch>(from, depth, to);
    else
      in_floats::encode<Arch>(from, depth, reinterpret_cast<float*>(to));
  }
  /// f(rows, step) with the rows as what they hold.
  template <class F> static void with_rows(const bfloat16* rows, std::size_t step, const F& f) noexcept {
    if (in_pairs())
      f(rows, step);
    else
      f(reinterpret_cast<const float*>(rows), step / 2);
  }
  template <std::size_t Rows, std::size_t Panels, class Arch>
  static void multiply(std::size_t depth, const bfloat16* rows, std::size_t step, const std::byte* panel,
                       detail::read_ahead ahead, float* tile) noexcept {
    with_rows(rows, step, [&]<class Row>(const Row* held, std::size_t apart) {
      basic_bf16<true, Row>::template multiply<Rows, Panels, Arch>(depth, held, apart, panel, ahead, tile);
    });
  }

private:
  [[nodiscard]] static bool in_pairs() noexcept { return !simd_detail::on_intel(); }
};
/// bfloat16 in the quickest way that the compiler's flags allow (another type for other flags, as above).
using bf16 = quickest_bf16;
#else
using bf16 = basic_bf16<false>;
#endif

} // namespace hmoe::backends::formats

#include <hmoe/core/macros_on.hpp>
