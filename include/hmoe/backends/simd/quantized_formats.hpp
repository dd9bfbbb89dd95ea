// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/quantized_block.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace hmoe::backends::formats {

/// Activations beside quantised weights: 32 signed bytes, x ≈ scale · q with scale = max|x|/127, and Σ q.
struct int8_block {
  std::int8_t codes[quantized_block_size];
  float scale;
  std::int32_t sum;
};

/// Weights in blocks of 32 along k that share a scale (see core/quantized_block.hpp); activations are rounded to bytes
/// in the same blocks, products are exact in integers, and each block adds scale_w · scale_x · Σ to a float sum.
/// A panel holds the scales (and offsets) of all its blocks, then the codes: in lane i those of column i at four
/// consecutive k; of 4-bit codes the lower halves belong to the first 16 k of a block and the upper to the last 16.
/// Vnni: whether vpdpbusd multiplies; WidensHalf: whether F16C or AVX-512 reads the scales.
template <class Block, bool Vnni, bool WidensHalf = Vnni> struct quantized {
  using row_value = std::byte;
  static constexpr float largest_weight = largest_quantized_weight;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return detail::padded_row<std::byte>(blocks(depth) * sizeof(int8_block));
  }
  [[nodiscard]] static constexpr std::size_t row_offset(std::size_t k) noexcept {
    return k / quantized_block_size * sizeof(int8_block);
  }
  template <class Arch> static void encode(const float* from, std::size_t depth, std::byte* to) noexcept {
    for (std::size_t k = 0; k < depth; k += quantized_block_size, to += sizeof(int8_block)) {
      alignas(memory_alignment) float values[quantized_block_size] = {};
      std::copy_n(from + k, std::min(quantized_block_size, depth - k), values);
      encode_block<Arch>(values, *reinterpret_cast<int8_block*>(to));
    }
  }

  template <class Arch> [[nodiscard]] static constexpr std::size_t panel_bytes(std::size_t depth) noexcept {
    return scale_bytes<Arch>(depth) + aligned_bytes<std::byte>(blocks(depth) * code_bytes<Arch>);
  }
  template <class Arch, class Weight> static void pack(std::size_t depth, Weight weight, std::byte* to) noexcept {
    constexpr std::size_t columns = 2 * detail::lanes<Arch>;
    std::fill_n(to, panel_bytes<Arch>(depth), std::byte{0});
    for (std::size_t b = 0; b < blocks(depth); ++b)
      for (std::size_t c = 0; c < columns; ++c) {
        float values[quantized_block_size] = {};
        for (std::size_t i = 0; i < std::min(quantized_block_size, depth - b * quantized_block_size); ++i)
          values[i] = weight(b * quantized_block_size + i, c);
        const Block block = Block::quantize(values);
        pack_scale<Arch>(block, b, c, to);
        std::byte* codes = to + scale_bytes<Arch>(depth) + b * code_bytes<Arch>;
        for (std::size_t i = 0; i < quantized_block_size; ++i) {
          const std::size_t step = i / 4 % steps_stored, shift = i / 4 / steps_stored * 4;
          codes[(step * columns + c) * 4 + i % 4] |= std::byte{block.code(i)} << shift;
        }
      }
  }

  template <std::size_t Rows, class Arch>
  static void multiply(std::size_t depth, const std::byte* rows, std::size_t step, const std::byte* panel,
                       float* tile) noexcept {
    using vec = xsimd::batch<float, Arch>;
    using ints = simd_detail::int_vector<Arch>;
    using bytes = simd_detail::byte_vector<Arch>;
    constexpr std::size_t n = vec::size;
    const std::byte* codes = panel + scale_bytes<Arch>(depth);
    // The float sums stay in the tile, in L1: the registers are for the integer sums.
    std::fill_n(tile, Rows * 2 * n, 0.0F);
    for (std::size_t b = 0; b < blocks(depth); ++b, codes += code_bytes<Arch>) {
      const auto block_of = [&](std::size_t r) {
        return reinterpret_cast<const int8_block*>(rows + r * step + b * sizeof(int8_block));
      };
      // Codes are unsigned: what their zero adds to the sum is taken off beforehand.
      ints dots[Rows][2];
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r)
        dots[r][0] = dots[r][1] = ints(-zero * block_of(r)->sum);
      const auto add = [&](std::size_t four, const bytes& left, const bytes& right) {
#pragma GCC unroll 16
        for (std::size_t r = 0; r < Rows; ++r) {
          std::uint32_t values;
          std::memcpy(&values, block_of(r)->codes + 4 * four, sizeof values);
          dots[r][0] = simd_detail::add_dot<Vnni, Arch>(dots[r][0], left, values);
          dots[r][1] = simd_detail::add_dot<Vnni, Arch>(dots[r][1], right, values);
        }
      };
      const auto* weights = reinterpret_cast<const std::uint32_t*>(codes);
#pragma GCC unroll 8 // as a loop, g++ 12 keeps most sums in memory
      for (std::size_t s = 0; s < steps_stored; ++s, weights += 2 * n) {
        const bytes left = bytes::load_aligned(weights), right = bytes::load_aligned(weights + n);
        detail::prefetch_far(weights);
        detail::prefetch_far(weights + n);
        if constexpr (Block::bits == 8) {
          add(s, left, right);
        } else {
          const bytes low(0x0f0f0f0fU);
          add(s, number<Arch>(left & low), number<Arch>(right & low));
          add(s + steps_stored, number<Arch>((left >> 4) & low), number<Arch>((right >> 4) & low));
        }
      }
      const vec left_scale = scale<Arch>(panel, b, 0), right_scale = scale<Arch>(panel, b, 1);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r) {
        float* sums = tile + r * 2 * n;
        const vec row_scale(block_of(r)->scale);
        vec left = xsimd::fma(xsimd::to_float(dots[r][0]), left_scale * row_scale, vec::load_aligned(sums)),
            right = xsimd::fma(xsimd::to_float(dots[r][1]), right_scale * row_scale, vec::load_aligned(sums + n));
        if constexpr (has_offset) {
          const vec total(block_of(r)->scale * static_cast<float>(block_of(r)->sum));
          left = xsimd::fma(total, half_at<Arch>(panel, 2 * b + 1, 0), left);
          right = xsimd::fma(total, half_at<Arch>(panel, 2 * b + 1, 1), right);
        }
        left.store_aligned(sums);
        right.store_aligned(sums + n);
      }
    }
  }

private:
  static constexpr bool is_mxfp4 = std::same_as<Block, mxfp4_block>;
  static constexpr bool has_offset = requires(const Block& block) { block.offset(); };
  /// Steps of four k that a block's codes take in memory.
  static constexpr std::size_t steps_stored = quantized_block_size * Block::bits / 32;
  /// What is taken off a code to have a number. MXFP4's numbers are twice the values, plus 12.
  static constexpr int zero = [] {
    if constexpr (is_mxfp4)
      return 12;
    else
      return Block::zero;
  }();
  template <class Arch>
  static constexpr std::size_t code_bytes = quantized_block_size * Block::bits / 8 * 2 * detail::lanes<Arch>;

  [[nodiscard]] static constexpr std::size_t blocks(std::size_t depth) noexcept {
    return (depth + quantized_block_size - 1) / quantized_block_size;
  }
  template <class Arch> [[nodiscard]] static constexpr std::size_t scale_bytes(std::size_t depth) noexcept {
    const std::size_t bytes_of_column = is_mxfp4 ? 1 : has_offset ? 2 * sizeof(half) : sizeof(half);
    return aligned_bytes<std::byte>(blocks(depth) * bytes_of_column * 2 * detail::lanes<Arch>);
  }
  template <class Arch>
  static void pack_scale(const Block& block, std::size_t b, std::size_t column, std::byte* panel) noexcept {
    constexpr std::size_t columns = 2 * detail::lanes<Arch>;
    if constexpr (is_mxfp4) {
      reinterpret_cast<std::uint8_t*>(panel)[b * columns + column] = block.exponent;
    } else {
      auto* scales = reinterpret_cast<half*>(panel);
      if constexpr (has_offset) {
        scales[2 * b * columns + column] = block.scale_bits;
        scales[(2 * b + 1) * columns + column] = block.offset_bits;
      } else {
        scales[b * columns + column] = block.scale_bits;
      }
    }
  }
  /// Row `row` of the table of binary16 numbers at the head of a panel, left or right half.
  template <class Arch>
  static xsimd::batch<float, Arch> half_at(const std::byte* panel, std::size_t row, std::size_t side) noexcept {
    constexpr std::size_t n = detail::lanes<Arch>;
    return detail::load<Arch, WidensHalf>(reinterpret_cast<const half*>(panel) + row * 2 * n + side * n);
  }
  template <class Arch>
  static xsimd::batch<float, Arch> scale(const std::byte* panel, std::size_t b, std::size_t side) noexcept {
    if constexpr (is_mxfp4) {
      constexpr std::size_t n = detail::lanes<Arch>;
      alignas(memory_alignment) float scales[n];
      const auto* exponents = reinterpret_cast<const std::uint8_t*>(panel) + b * 2 * n + side * n;
      for (std::size_t i = 0; i < n; ++i) // half of the scale: the numbers are doubled
        scales[i] = std::bit_cast<float>(std::uint32_t{exponents[i]} << 23U) * 0.5F;
      return xsimd::batch<float, Arch>::load_aligned(scales);
    } else {
      return half_at<Arch>(panel, has_offset ? 2 * b : b, side);
    }
  }
  /// What the integer product takes for a 4-bit code.
  template <class Arch>
  [[gnu::always_inline]] static simd_detail::byte_vector<Arch>
  number(const simd_detail::byte_vector<Arch>& codes) noexcept {
    if constexpr (is_mxfp4) {
      static constexpr std::uint8_t table[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
      return simd_detail::look_up<Arch>(table, codes);
    } else {
      return codes;
    }
  }

  template <class Arch> static void encode_block(const float* values, int8_block& to) noexcept {
    using vec = xsimd::batch<float, Arch>;
    vec largest(0.0F);
    bool finite = true;
    for (std::size_t i = 0; i < quantized_block_size; i += vec::size) {
      const vec magnitude = xsimd::abs(vec::load_aligned(values + i));
      largest = xsimd::max(largest, magnitude);
      finite = finite && xsimd::all(magnitude <= vec(std::numeric_limits<float>::max()));
    }
    alignas(vec) float lanes[vec::size];
    largest.store_aligned(lanes);
    const float most = *std::max_element(lanes, lanes + vec::size);
    to.scale = finite ? most / 127 : std::numeric_limits<float>::quiet_NaN(); // NaN spreads to the sums
    const vec inverse(finite && most > 0 ? 127 / most : 0.0F);
    alignas(memory_alignment) std::int32_t codes[quantized_block_size] = {};
    if (finite)
      for (std::size_t i = 0; i < quantized_block_size; i += vec::size)
        xsimd::nearbyint_as_int(vec::load_aligned(values + i) * inverse).store_aligned(codes + i);
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < quantized_block_size; ++i) {
      to.codes[i] = static_cast<std::int8_t>(codes[i]);
      sum += codes[i];
    }
    to.sum = sum;
  }
};

/// 8.5, 4.5, 5 and 4.25 bits per weight (other types for other flags, as f16 and bf16).
using q8 = quantized<q8_block, HMOE_DETAIL_HAS_VNNI == 1, HMOE_DETAIL_HAS_F16 == 1>;
using q4 = quantized<q4_block, HMOE_DETAIL_HAS_VNNI == 1, HMOE_DETAIL_HAS_F16 == 1>;
using q4_offset = quantized<q4_offset_block, HMOE_DETAIL_HAS_VNNI == 1, HMOE_DETAIL_HAS_F16 == 1>;
using mxfp4 = quantized<mxfp4_block, HMOE_DETAIL_HAS_VNNI == 1>;

} // namespace hmoe::backends::formats
