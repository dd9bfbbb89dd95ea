// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/activation_block.hpp>
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
#include <string_view>
#include <type_traits>

namespace hmoe::backends::formats {

namespace detail {
template <class Block> struct block_name; ///< what a format of these blocks is called in files
template <> struct block_name<basic_q8_block<32>> {
  static constexpr std::string_view value = "q8";
};
template <> struct block_name<basic_q8_block<64>> {
  static constexpr std::string_view value = "q8_64";
};
template <> struct block_name<basic_q8_block<128>> {
  static constexpr std::string_view value = "q8_128";
};
template <> struct block_name<basic_q4_block<32>> {
  static constexpr std::string_view value = "q4";
};
template <> struct block_name<basic_q4_block<64>> {
  static constexpr std::string_view value = "q4_64";
};
template <> struct block_name<basic_q4_block<128>> {
  static constexpr std::string_view value = "q4_128";
};
template <> struct block_name<q4_offset_block> {
  static constexpr std::string_view value = "q4_offset";
};
template <> struct block_name<mxfp4_block> {
  static constexpr std::string_view value = "mxfp4";
};
} // namespace detail

/// Weights in blocks along k that share a scale (see core/quantized_block.hpp); activations are rounded to bytes, which
/// share a scale in the same blocks or in a whole row. Products are exact in integers, and each block adds
/// scale_w · scale_x · Σ to a float sum (scale_w · Σ where a row has one scale, which the sum is multiplied by).
/// A panel is read from front to back: the scales (and offsets) of a block, or of four whose scales are bytes, stand
/// before its codes. In lane i are the codes of column i at four consecutive k; of 4-bit codes the lower halves belong
/// to the first 16 of 32 k and the upper to the last 16.
/// Product: how bytes are multiplied; WidensHalf: whether F16C or AVX-512 reads the scales.
template <class Block, simd_detail::byte_product Product, bool WidensHalf = false,
          activation_scale Scale = activation_scale::block>
struct quantized {
  using row_value = std::byte;
  using block_type = Block;
  static constexpr std::string_view name = detail::block_name<Block>::value;
  static constexpr float largest_weight = largest_quantized_weight;
  static constexpr std::size_t encoded_together = Block::size;
  static constexpr bool encodes_rows = Scale == activation_scale::row;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return detail::padded_row<std::byte>(blocks(depth) * sizeof(row_block));
  }
  [[nodiscard]] static constexpr std::size_t row_offset(std::size_t k) noexcept {
    return k / Block::size * sizeof(row_block);
  }
  template <class Arch>
  static void encode(const float* from, std::size_t depth, std::byte* to, float factor = 1) noexcept {
    detail::for_each_activation_block<Arch, Block::size, Scale>(
        from, depth, factor, [to](const float* values, const auto& scaling, std::size_t b) {
          auto& block = *reinterpret_cast<row_block*>(to + b * sizeof(row_block));
          const std::int32_t sum = detail::encode_activations<Arch>(values, scaling, block);
          if constexpr (has_offset)
            block.constant = encodes_rows ? static_cast<float>(sum) : block.scale * static_cast<float>(sum);
          else
            block.constant = -zero * sum;
        });
  }

  template <class Arch> [[nodiscard]] static constexpr std::size_t panel_bytes(std::size_t depth) noexcept {
    const std::size_t count = blocks(depth), groups = (count + blocks_together - 1) / blocks_together;
    return aligned_bytes<std::byte>(groups * scale_bytes<Arch> + count * code_bytes<Arch>);
  }
  template <class Arch, class Weight> static void pack(std::size_t depth, Weight weight, std::byte* to) noexcept {
    pack_blocks<Arch>(
        depth,
        [depth, &weight](std::size_t b, std::size_t c) {
          float values[Block::size] = {};
          for (std::size_t i = 0; i < std::min(Block::size, depth - b * Block::size); ++i)
            values[i] = weight(b * Block::size + i, c);
          return Block::quantize(values);
        },
        to);
  }
  /// Writes a panel from block(b, column), whose weights are those of k from Block::size · b on.
  template <class Arch, class BlockAt>
  static void pack_blocks(std::size_t depth, BlockAt block_at, std::byte* to) noexcept {
    constexpr std::size_t columns = 2 * detail::lanes<Arch>;
    std::fill_n(to, panel_bytes<Arch>(depth), std::byte{0});
    for (std::size_t b = 0; b < blocks(depth); ++b)
      for (std::size_t c = 0; c < columns; ++c) {
        const Block block = block_at(b, c);
        pack_scale<Arch>(block, b, c, to + scales_at<Arch>(b));
        std::byte* codes = to + codes_at<Arch>(b);
        for (std::size_t i = 0; i < Block::size; ++i) {
          const std::size_t in_part = i / 4 % 8, shift = in_part / steps_stored * 4;
          const std::size_t step = i / quantized_block_size * steps_stored + in_part % steps_stored;
          codes[(step * columns + c) * 4 + i % 4] |= std::byte{block.code(i)} << shift;
        }
      }
  }

  template <std::size_t Rows, std::size_t Panels, class Arch>
    requires(Panels == 1)
  static void multiply(std::size_t depth, const std::byte* rows, std::size_t step, const std::byte* panel,
                       detail::read_ahead ahead, float* tile) noexcept {
    using vec = xsimd::batch<float, Arch>;
    using ints = simd_detail::int_vector<Arch>;
    using bytes = simd_detail::byte_vector<Arch>;
    constexpr std::size_t n = vec::size;
    // The float sums stay in the tile, in L1: the registers are for the integer sums.
    detail::clear_tile<Rows, vec>(tile);
    detail::row_pointers<std::byte, Rows> activations(rows, step);
    for (std::size_t b = 0; b < blocks(depth); ++b, activations.advance(sizeof(row_block))) {
      const std::byte* scales = panel + scales_at<Arch>(b);
      if (b % blocks_together == 0)
        ahead.template advance<scale_bytes<Arch>, 1, 2>();
      const auto block_of = [&](std::size_t r) { return reinterpret_cast<const row_block*>(activations[r]); };
      ints dots[Rows][2];
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r)
        dots[r][0] = dots[r][1] = ints(has_offset || is_narrow ? 0 : static_cast<std::int32_t>(block_of(r)->constant));
      const auto* weights = reinterpret_cast<const std::uint32_t*>(panel + codes_at<Arch>(b));
      [[maybe_unused]] ints earlier[sums_in_16_bits ? Rows : 1][2]; // of the parts of 32 before
      for (std::size_t part = 0; part < Block::size / quantized_block_size; ++part) {
        const std::size_t first = part * quantized_block_size * sizeof(row_code);
#pragma GCC unroll 8 // as a loop, g++ 12 keeps most sums in memory
        for (std::size_t s = 0; s < steps_stored; ++s, weights += 2 * n) {
          ahead.template advance<2 * n * sizeof(*weights), 1, 2>();
#pragma GCC unroll 4
          for (std::size_t piece = 0; piece < pieces; ++piece) {
            // Loaded anew for each piece: 16 registers hold 12 sums, these two and one activation.
            detail::add_step<Product, Arch>(numbers<Arch>(bytes::load_aligned(weights), piece),
                                            numbers<Arch>(bytes::load_aligned(weights + n), piece), activations,
                                            first + place(s, piece), dots);
          }
        }
        if constexpr (sums_in_16_bits)
          if (part + 1 < Block::size / quantized_block_size) {
            const bytes ones(0x00010001U);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < Rows; ++r)
              for (std::size_t side = 0; side < 2; ++side) {
                const ints wide = simd_detail::pairs<Arch>(xsimd::bitwise_cast<bytes>(dots[r][side]), ones);
                earlier[r][side] = part == 0 ? wide : earlier[r][side] + wide;
                dots[r][side] = ints(0);
              }
          }
      }
      const vec left_scale = scale<Arch>(scales, b, 0), right_scale = scale<Arch>(scales, b, 1);
      [[maybe_unused]] vec left_offset, right_offset;
      if constexpr (has_offset) {
        left_offset = half_at<Arch>(scales, 1, 0);
        right_offset = half_at<Arch>(scales, 1, 1);
      }
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r) {
        if constexpr (is_narrow) {
          const bytes ones(0x00010001U);
          const ints constant(has_offset ? 0 : static_cast<std::int32_t>(block_of(r)->constant));
          dots[r][0] = constant + simd_detail::pairs<Arch>(xsimd::bitwise_cast<bytes>(dots[r][0]), ones);
          dots[r][1] = constant + simd_detail::pairs<Arch>(xsimd::bitwise_cast<bytes>(dots[r][1]), ones);
          if constexpr (sums_in_16_bits) {
            dots[r][0] += earlier[r][0];
            dots[r][1] += earlier[r][1];
          }
        }
        float* sums = tile + r * 2 * n;
        vec by_left = left_scale, by_right = right_scale;
        if constexpr (!encodes_rows) {
          const vec row_scale(block_of(r)->scale);
          by_left = left_scale * row_scale;
          by_right = right_scale * row_scale;
        }
        vec left = xsimd::fma(xsimd::to_float(dots[r][0]), by_left, vec::load_aligned(sums)),
            right = xsimd::fma(xsimd::to_float(dots[r][1]), by_right, vec::load_aligned(sums + n));
        if constexpr (has_offset) {
          const vec total(block_of(r)->constant);
          left = xsimd::fma(total, left_offset, left);
          right = xsimd::fma(total, right_offset, right);
        }
        left.store_aligned(sums);
        right.store_aligned(sums + n);
      }
    }
    if constexpr (encodes_rows)
      detail::scale_rows<row_block, Arch>(Rows, depth == 0 ? nullptr : rows, step, tile);
  }

private:
  static constexpr bool is_mxfp4 = std::same_as<Block, mxfp4_block>;
  static constexpr bool has_offset = requires(const Block& block) { block.offset(); };
  static constexpr bool is_narrow = Product == simd_detail::byte_product::narrow,
                        in_pairs = Product == simd_detail::byte_product::pairs;
  /// Sums of 16 bits hold the products of 32.
  static constexpr bool sums_in_16_bits = is_narrow && Block::size > quantized_block_size;
  static_assert(!is_narrow || (Block::bits == 4 && !is_mxfp4), "hmoe: byte_product::narrow is for weights up to 15");
  using row_code = std::conditional_t<in_pairs, std::int16_t, std::int8_t>;
  using row_block = activation_block<row_code, std::conditional_t<has_offset, float, std::int32_t>, Block::size>;
  /// Steps of four k that the codes of 32 take in memory.
  static constexpr std::size_t steps_stored = quantized_block_size * Block::bits / 32;
  /// Products that a step is taken in: of its lower and its upper 4 bits, of its even and its odd bytes.
  static constexpr std::size_t pieces = (Block::bits == 4 ? 2 : 1) * (in_pairs ? 2 : 1);
  /// Where among 32 activations those of a piece are.
  static constexpr std::size_t place(std::size_t step, std::size_t piece) noexcept {
    return in_pairs ? 8 * (step + piece / 2 * steps_stored) + 4 * (piece % 2) : 4 * (step + piece * steps_stored);
  }
  /// What is taken off a code to have a number. MXFP4's numbers are twice the values, plus 12.
  static constexpr int zero = [] {
    if constexpr (is_mxfp4)
      return 12;
    else
      return Block::zero;
  }();
  template <class Arch>
  static constexpr std::size_t code_bytes = Block::size * Block::bits / 8 * 2 * detail::lanes<Arch>;

  [[nodiscard]] static constexpr std::size_t blocks(std::size_t depth) noexcept {
    return (depth + Block::size - 1) / Block::size;
  }
  /// Blocks whose scales stand together, and the bytes of these.
  static constexpr std::size_t blocks_together = is_mxfp4 ? 4 : 1;
  template <class Arch>
  static constexpr std::size_t scale_bytes = (is_mxfp4 || has_offset ? 4 : 2) * 2 * detail::lanes<Arch>;
  /// Where in a panel a block's scales and codes are.
  template <class Arch> [[nodiscard]] static constexpr std::size_t scales_at(std::size_t b) noexcept {
    return b / blocks_together * (scale_bytes<Arch> + blocks_together * code_bytes<Arch>);
  }
  template <class Arch> [[nodiscard]] static constexpr std::size_t codes_at(std::size_t b) noexcept {
    return scales_at<Arch>(b) + scale_bytes<Arch> + b % blocks_together * code_bytes<Arch>;
  }
  template <class Arch>
  static void pack_scale(const Block& block, std::size_t b, std::size_t column, std::byte* scales) noexcept {
    if constexpr (is_mxfp4) {
      scales[column * 4 + b % 4] = std::byte{block.exponent}; // of four blocks in a lane
    } else {
      auto* halves = reinterpret_cast<half*>(scales);
      halves[column] = block.scale_bits;
      if constexpr (has_offset)
        halves[2 * detail::lanes<Arch> + column] = block.offset_bits;
    }
  }
  /// Scales (row 0) or offsets (row 1) of a block, left or right half.
  template <class Arch>
  static xsimd::batch<float, Arch> half_at(const std::byte* scales, std::size_t row, std::size_t side) noexcept {
    constexpr std::size_t n = detail::lanes<Arch>;
    return detail::load<Arch, WidensHalf>(reinterpret_cast<const half*>(scales) + row * 2 * n + side * n);
  }
  template <class Arch>
  static xsimd::batch<float, Arch> scale(const std::byte* scales, [[maybe_unused]] std::size_t b,
                                         std::size_t side) noexcept {
    if constexpr (is_mxfp4) {
      using bits = xsimd::batch<std::uint32_t, Arch>;
      using vec = xsimd::batch<float, Arch>;
      const bits four = bits::load_aligned(reinterpret_cast<const std::uint32_t*>(scales) + side * vec::size);
      const bits exponent = (four >> static_cast<int>(b % 4 * 8)) & bits(0xffU);
      return xsimd::bitwise_cast<vec>(exponent << 23) * vec(0.5F); // the numbers are doubled
    } else {
      return half_at<Arch>(scales, 0, side);
    }
  }
  /// What a piece multiplies, of the codes of a step.
  template <class Arch>
  [[gnu::always_inline]] static simd_detail::byte_vector<Arch> numbers(const simd_detail::byte_vector<Arch>& codes,
                                                                       std::size_t piece) noexcept {
    using bytes = simd_detail::byte_vector<Arch>;
    const bool upper = (in_pairs ? piece / 2 : piece) != 0, odd = in_pairs && piece % 2 != 0;
    const int shift = (upper ? 4 : 0) + (odd && !is_mxfp4 ? 8 : 0);
    bytes found = shift == 0 ? codes : codes >> shift;
    if constexpr (is_mxfp4) {
      static constexpr std::uint8_t table[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
      found = simd_detail::look_up<Arch>(table, found & bytes(0x0f0f0f0fU));
      if (odd)
        found = found >> 8;
    }
    if constexpr (in_pairs)
      return found & bytes(Block::bits == 4 && !is_mxfp4 ? 0x000f000fU : 0x00ff00ffU);
    else
      return Block::bits == 4 && !is_mxfp4 ? found & bytes(0x0f0f0f0fU) : found;
  }
};

/// 8 and 4 bits per weight and 16 for each Group of 32, 64 or 128 weights along k (other types for other flags, as f16
/// and bf16); how many activations share a scale.
template <std::size_t Group = quantized_block_size, activation_scale Scale = activation_scale::block>
using basic_q8 = quantized<basic_q8_block<Group>, HMOE_DETAIL_WIDE_PRODUCT, HMOE_DETAIL_HAS_F16 == 1, Scale>;
template <std::size_t Group = quantized_block_size, activation_scale Scale = activation_scale::block>
using basic_q4 = quantized<basic_q4_block<Group>, HMOE_DETAIL_NARROW_PRODUCT, HMOE_DETAIL_HAS_F16 == 1, Scale>;

/// 8.5, 4.5, 5 and 4.25 bits per weight.
using q8 = basic_q8<>;
using q4 = basic_q4<>;
using q4_offset = quantized<q4_offset_block, HMOE_DETAIL_NARROW_PRODUCT, HMOE_DETAIL_HAS_F16 == 1>;
using mxfp4 = quantized<mxfp4_block, HMOE_DETAIL_WIDE_PRODUCT>;

} // namespace hmoe::backends::formats

#include <hmoe/core/macros_on.hpp>
