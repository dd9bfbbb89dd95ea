// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/weight_cell.hpp>

#include <cstdint>
#include <type_traits>

/// The codes of a lane become the words of a fragment: pairs of bfloat16 or half, each the exact value of its block
/// (Block::value, a float) rounded once.
namespace hmoe::backends::cuda_detail {

/// 2^15 + byte i of four, as a float: one byte permutation puts the byte into the fraction of `base`, which is 2^15. A
/// scale has 11 significant bits, so that s · (2^15 + c) − s · (2^15 + zero) is exact in one multiply-add, for 8 bits
/// as well.
[[nodiscard]] __device__ inline float byte_above_2_15(std::uint32_t base, std::uint32_t bytes, int i) {
  return __uint_as_float(__byte_perm(bytes, base, 0x7404U | static_cast<unsigned>(i) << 4U));
}
/// 2^15 in a form that the compiler does not see through (`shared` is below 2^24): as a constant it would be the
/// immediate operand of each permutation, and the selectors would be moved into registers again and again.
[[nodiscard]] __device__ inline std::uint32_t opaque_2_15(std::uint32_t shared) { return 0x47000000U | shared >> 24U; }

/// s · (c − zero) for two rows.
template <int Zero> struct scaled_rows {
  float scale[2], shift[2];

  scaled_rows() = default;
  __device__ explicit scaled_rows(const half (&scales)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      scale[r] = to_float(scales[r]);
      shift[r] = -scale[r] * static_cast<float>((1 << 15) + Zero);
    }
  }
  [[nodiscard]] __device__ float value(int row, float above_2_15) const {
    return fmaf(scale[row], above_2_15, shift[row]);
  }
};
/// s · c + m for two rows; the sum is rounded, so c must be exact before.
struct scaled_and_moved_rows {
  float scale[2], offset[2];

  scaled_and_moved_rows() = default;
  __device__ explicit scaled_and_moved_rows(const cell_format<q4_offset_block>::scale_type (&scales)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      scale[r] = to_float(scales[r].scale);
      offset[r] = to_float(scales[r].offset);
    }
  }
  [[nodiscard]] __device__ float value(int row, float above_2_15) const {
    return fmaf(scale[row], above_2_15 - 0x1p15F, offset[row]);
  }
};

/// rows: the scales of rows l / 4 and l / 4 + 8. decode(words, codes, rows, base): words 0 and 1 are of the first row.
template <class S, class Block> struct cell_decoder;

template <class S> struct cell_decoder<S, q8_block> {
  using rows = scaled_rows<q8_block::zero>;
  __device__ static void decode(std::uint32_t (&words)[4], const std::uint32_t (&codes)[2], const rows& by,
                                std::uint32_t) {
    constexpr std::uint32_t base = 0x47000000U; // four selectors stay in registers
#pragma unroll
    for (int w = 0; w < 4; ++w)
      words[w] = pack_pair<S>(by.value(w / 2, byte_above_2_15(base, codes[w / 2], w % 2 * 2)),
                              by.value(w / 2, byte_above_2_15(base, codes[w / 2], w % 2 * 2 + 1)));
  }
};

template <class S, class Rows> struct nibble_decoder {
  using rows = Rows;
  __device__ static void decode(std::uint32_t (&words)[4], const std::uint32_t (&codes)[1], const rows& by,
                                std::uint32_t base) {
    const std::uint32_t firsts = codes[0] & 0x0F0F0F0FU, seconds = codes[0] >> 4U & 0x0F0F0F0FU;
#pragma unroll
    for (int w = 0; w < 4; ++w)
      words[w] = pack_pair<S>(by.value(w / 2, byte_above_2_15(base, firsts, w)),
                              by.value(w / 2, byte_above_2_15(base, seconds, w)));
  }
};
template <class S> struct cell_decoder<S, q4_block> : nibble_decoder<S, scaled_rows<q4_block::zero>> {};
template <class S> struct cell_decoder<S, q4_offset_block> : nibble_decoder<S, scaled_and_moved_rows> {};

/// a · b in two bfloat16, with the signs of zeros (bare multiplications of them need compute capability 9.0).
[[nodiscard]] __device__ inline std::uint32_t multiply_pair(std::uint32_t a, std::uint32_t b) {
  std::uint32_t result;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(0x80008000U));
  return result;
}

/// E2M1 in the last bits of exponent and fraction of a bfloat16, ½ as a subnormal number, is 2^−126 of its value.
template <class S> struct cell_decoder<S, mxfp4_block> {
  struct rows {
    std::uint32_t power[2]; ///< 2^(exponent − 127) in bfloat16, twice

    rows() = default;
    __device__ explicit rows(const std::uint8_t (&exponents)[2]) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const std::uint32_t bits = max(static_cast<std::uint32_t>(exponents[r]) << 7U, 0x40U); // 2^−127: subnormal
        power[r] = bits | bits << 16U;
      }
    }
  };
  __device__ static void decode(std::uint32_t (&words)[4], const std::uint32_t (&codes)[1], const rows& by,
                                std::uint32_t) {
    constexpr std::uint32_t mask = 0x81C081C0U;
    const std::uint32_t c = codes[0],
                        tiny[4]{c & mask, c << 3U & mask, c << 6U & mask,
                                (c << 1U & 0x80008000U) | (c >> 4U & 0x00C000C0U) | (c >> 5U & 0x01000100U)};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const std::uint32_t pair = multiply_pair(tiny[w], 0x7E807E80U); // 2^126
      if constexpr (std::is_same_v<S, bfloat16>) {
        words[w] = multiply_pair(pair, by.power[w / 2]);
      } else {
        const float scale = __uint_as_float(by.power[w / 2] & 0xFFFF0000U);
        words[w] = pack_pair<S>(scale * __uint_as_float(pair << 16U), scale * __uint_as_float(pair & 0xFFFF0000U));
      }
    }
  }
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
