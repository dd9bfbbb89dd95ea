// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/scalar.hpp>
#include <hmoe/io/small_floats.hpp>

#include <cstddef>
#include <cstdint>

/// Blocks of weights as GGUF files have them, and their values: the floats that ggml's own functions give, bit for bit.
/// In a byte of two codes the lower half is a weight of the block's first half, and the upper one of its second half.
/// (hmoe/core/quantized_block.hpp has neighbours in a byte.) All products but the last one of Q6_K are exact in float,
/// so that contracted multiply-adds change nothing.
namespace hmoe::io {

/// w = d·q, q = −128 … 127.
struct q8_0_block {
  static constexpr std::size_t size = 32;
  half d;
  std::int8_t q[32];

  void dequantize(float* w) const noexcept {
    const float scale = d;
    for (std::size_t i = 0; i < size; ++i)
      w[i] = scale * static_cast<float>(q[i]);
  }
};

/// w = d·(q − 8), q = 0 … 15.
struct q4_0_block {
  static constexpr std::size_t size = 32;
  half d;
  std::uint8_t q[16];

  void dequantize(float* w) const noexcept {
    const float scale = d;
    for (std::size_t i = 0; i < 16; ++i) {
      w[i] = scale * static_cast<float>((q[i] & 15) - 8);
      w[i + 16] = scale * static_cast<float>((q[i] >> 4) - 8);
    }
  }
};

/// w = d·q + m, q = 0 … 15.
struct q4_1_block {
  static constexpr std::size_t size = 32;
  half d, m;
  std::uint8_t q[16];

  void dequantize(float* w) const noexcept {
    const float scale = d, offset = m;
    for (std::size_t i = 0; i < 16; ++i) {
      w[i] = scale * static_cast<float>(q[i] & 15) + offset;
      w[i + 16] = scale * static_cast<float>(q[i] >> 4) + offset;
    }
  }
};

/// Eight parts of 32: w = d·s_p·q − d_min·m_p, q = 0 … 15, with s_p and m_p of 6 bits. Parts 2i and 2i + 1 are the
/// lower and the upper halves of the same 32 bytes.
struct q4_k_block {
  static constexpr std::size_t size = 256;
  half d, d_min;
  std::uint8_t scales[12]; ///< of parts 0 … 3 the lower 6 bits; of the others the bits are spread, see part_scale
  std::uint8_t q[128];

  [[nodiscard]] unsigned part_scale(std::size_t p) const noexcept {
    return p < 4 ? bits(p) & 63U : (bits(p + 4) & 15U) | (bits(p - 4) >> 6U) << 4U;
  }
  [[nodiscard]] unsigned part_minimum(std::size_t p) const noexcept {
    return p < 4 ? bits(p + 4) & 63U : bits(p + 4) >> 4U | (bits(p) >> 6U) << 4U;
  }
  void dequantize(float* w) const noexcept {
    for (std::size_t p = 0; p < 8; ++p) {
      const float scale = static_cast<float>(d) * static_cast<float>(part_scale(p));
      const float minimum = static_cast<float>(d_min) * static_cast<float>(part_minimum(p));
      for (std::size_t i = 0; i < 32; ++i)
        w[32 * p + i] = scale * static_cast<float>(q[p / 2 * 32 + i] >> (p % 2 * 4) & 15) - minimum;
    }
  }

private:
  [[nodiscard]] unsigned bits(std::size_t i) const noexcept { return scales[i]; }
};

/// Sixteen parts of 16: w = d·s_p·(q − 32), q = 0 … 63, whose lower four bits and upper two stand apart.
struct q6_k_block {
  static constexpr std::size_t size = 256;
  std::uint8_t low[128], high[64];
  std::int8_t scales[16];
  half d;

  void dequantize(float* w) const noexcept {
    for (std::size_t n = 0; n < size; ++n) {
      const std::size_t half_block = n / 128, part = n % 128 / 32, i = n % 32;
      const unsigned four = unsigned{low[half_block * 64 + part % 2 * 32 + i]} >> (part / 2 * 4) & 15U;
      const unsigned two = unsigned{high[half_block * 32 + i]} >> (part * 2) & 3U;
      const auto scale_of_16 = scales[n / 16];
      const float scale = static_cast<float>(d) * static_cast<float>(scale_of_16);
      w[n] = scale * static_cast<float>(static_cast<int>(four | two << 4U) - 32);
    }
  }
};

/// w = 2^(e − 127)·c with c of E2M1. Of e = 255, NaN in the standard, ggml makes 2^128, which is infinite here but for
/// c = 0 and ½; so it is computed as ggml does: 2^(e − 128) times twice c.
struct ggml_mxfp4_block {
  static constexpr std::size_t size = 32;
  std::uint8_t e;
  std::uint8_t q[16];

  void dequantize(float* w) const noexcept {
    const auto bits = e < 2 ? 0x00200000U << e : static_cast<std::uint32_t>(e - 1) << 23U;
    const float half_scale = __builtin_bit_cast(float, bits);
    // Without a sign: ggml's table is of whole numbers, which have no negative zero.
    const auto doubled = [](unsigned code) { return 2 * float_of_e2m1(code) + 0.0F; };
    for (std::size_t i = 0; i < 16; ++i) {
      w[i] = half_scale * doubled(q[i] & 15U);
      w[i + 16] = half_scale * doubled(q[i] >> 4U);
    }
  }
};

static_assert(sizeof(q8_0_block) == 34 && sizeof(q4_0_block) == 18 && sizeof(q4_1_block) == 20 &&
                  sizeof(q4_k_block) == 144 && sizeof(q6_k_block) == 210 && sizeof(ggml_mxfp4_block) == 17,
              "hmoe::io: a block has padding, which those in files have not");

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
