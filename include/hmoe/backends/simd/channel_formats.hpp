// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/activation_block.hpp>
#include <hmoe/backends/simd/int8_dot.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

namespace hmoe::backends::formats {

/// Weights of 8 bits with one scale for each output channel (a row of a checkpoint's matrix): w ≈ s · q, q = −127 …
/// 127, s = max|w|/127 of the channel; |error| ≤ s/2. Activations are rounded to bytes in blocks of 128, so 128
/// products are summed up in integers before a float is made: the quickest format on bytes, with about twice the error
/// of q8. With one scale for all activations of a row the integers are those of the whole sum. A panel holds the scales
/// of its columns, then the codes (plus 128): in lane i those of column i at four consecutive k. Product: how bytes are
/// multiplied, of which 16-bit sums are no choice.
template <simd_detail::byte_product Product, activation_scale Scale = activation_scale::block>
struct quantized_by_channel {
  using row_value = std::byte;
  static constexpr std::string_view name = "q8_channel";
  static constexpr float largest_weight = std::numeric_limits<float>::max();
  static constexpr std::size_t encoded_together = 128;
  static constexpr bool encodes_rows = Scale == activation_scale::row;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return detail::padded_row<std::byte>(blocks(depth) * sizeof(row_block));
  }
  [[nodiscard]] static constexpr std::size_t row_offset(std::size_t k) noexcept {
    return k / encoded_together * sizeof(row_block);
  }
  template <class Arch>
  static void encode(const float* from, std::size_t depth, std::byte* to, float factor = 1) noexcept {
    detail::for_each_activation_block<Arch, encoded_together, Scale>(
        from, depth, factor, [to](const float* values, const auto& scaling, std::size_t b) {
          auto& block = *reinterpret_cast<row_block*>(to + b * sizeof(row_block));
          block.constant = -zero * detail::encode_activations<Arch>(values, scaling, block);
        });
  }

  template <class Arch> [[nodiscard]] static constexpr std::size_t panel_bytes(std::size_t depth) noexcept {
    return aligned_bytes<std::byte>(scale_bytes<Arch> + steps(depth) * step_bytes<Arch>);
  }
  template <class Arch, class Weight> static void pack(std::size_t depth, Weight weight, std::byte* to) noexcept {
    constexpr std::size_t columns = 2 * detail::lanes<Arch>;
    std::fill_n(to, panel_bytes<Arch>(depth), std::byte{0});
    for (std::size_t c = 0; c < columns; ++c) {
      float largest = 0;
      for (std::size_t k = 0; k < depth; ++k)
        largest = std::max(largest, std::abs(weight(k, c)));
      const float scale = largest / 127;
      std::memcpy(to + c * sizeof(float), &scale, sizeof scale);
      for (std::size_t k = 0; k < depth; ++k) {
        const float code = scale > 0 ? std::nearbyint(std::clamp(weight(k, c) / scale, -127.0F, 127.0F)) : 0.0F;
        to[scale_bytes<Arch> + (k / 4 * columns + c) * 4 + k % 4] =
            static_cast<std::byte>(static_cast<int>(code) + zero);
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
    const auto* weights = reinterpret_cast<const std::uint32_t*>(panel + scale_bytes<Arch>);
    ahead.template advance<scale_bytes<Arch>, 1, 2>();
    detail::clear_tile<Rows, vec>(tile);
    detail::row_pointers<std::byte, Rows> activations(rows, step);
    for (std::size_t b = 0; b < blocks(depth);) {
      const std::size_t end = std::min(b + blocks_summed, blocks(depth));
      ints dots[Rows][2];
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r) {
        const auto* of_row = reinterpret_cast<const row_block*>(activations[r]);
        std::int32_t constant = of_row->constant;
        if constexpr (encodes_rows)
          for (std::size_t i = 1; i < end - b; ++i)
            constant += of_row[i].constant;
        dots[r][0] = dots[r][1] = ints(constant);
      }
      do {
        auto of_step = activations;
        std::size_t left = std::min(encoded_together / 4, steps(depth) - b * (encoded_together / 4));
        do { // at least once, as g++ has to know: else it copies all sums from register to register
          ahead.template advance<2 * n * sizeof(*weights), 1, 2>();
#pragma GCC unroll 2
          for (std::size_t part = 0; part < parts; ++part)
            detail::add_step<Product, Arch>(numbers<Arch>(bytes::load_aligned(weights), part),
                                            numbers<Arch>(bytes::load_aligned(weights + n), part), of_step, 4 * part,
                                            dots);
          weights += 2 * n;
          of_step.advance(4 * sizeof(row_code));
        } while (--left > 0);
        activations.advance(sizeof(row_block));
      } while (++b < end && blocks_summed > 1);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < Rows; ++r) {
        float* sums = tile + r * 2 * n;
        const vec scale(reinterpret_cast<const row_block*>(activations[r])[-1].scale);
        xsimd::fma(xsimd::to_float(dots[r][0]), scale, vec::load_aligned(sums)).store_aligned(sums);
        xsimd::fma(xsimd::to_float(dots[r][1]), scale, vec::load_aligned(sums + n)).store_aligned(sums + n);
      }
    }
    const auto* scales = reinterpret_cast<const float*>(panel);
    const vec left = vec::load_aligned(scales), right = vec::load_aligned(scales + n);
    for (std::size_t r = 0; r < Rows; ++r, tile += 2 * n) {
      (vec::load_aligned(tile) * left).store_aligned(tile);
      (vec::load_aligned(tile + n) * right).store_aligned(tile + n);
    }
  }

private:
  static_assert(Product != simd_detail::byte_product::narrow, "hmoe: byte_product::narrow is for weights up to 15");
  static constexpr bool in_pairs = Product == simd_detail::byte_product::pairs;
  using row_code = std::conditional_t<in_pairs, std::int16_t, std::int8_t>;
  using row_block = activation_block<row_code, std::int32_t, encoded_together>;
  static constexpr int zero = 128;
  /// Blocks whose products an integer holds: 65536 · 255 · 127 < 2^31.
  static constexpr std::size_t blocks_summed = encodes_rows ? 65536 / encoded_together : 1;
  /// Products that a step is taken in: of its even and its odd bytes.
  static constexpr std::size_t parts = in_pairs ? 2 : 1;
  template <class Arch> static constexpr std::size_t scale_bytes = 2 * detail::lanes<Arch> * sizeof(float);
  template <class Arch> static constexpr std::size_t step_bytes = 2 * detail::lanes<Arch> * 4;

  [[nodiscard]] static constexpr std::size_t blocks(std::size_t depth) noexcept {
    return (depth + encoded_together - 1) / encoded_together;
  }
  [[nodiscard]] static constexpr std::size_t steps(std::size_t depth) noexcept { return (depth + 3) / 4; }
  template <class Arch>
  [[gnu::always_inline]] static simd_detail::byte_vector<Arch> numbers(const simd_detail::byte_vector<Arch>& codes,
                                                                       std::size_t part) noexcept {
    using bytes = simd_detail::byte_vector<Arch>;
    if constexpr (in_pairs)
      return (part == 0 ? codes : codes >> 8) & bytes(0x00ff00ffU);
    else
      return codes;
  }
};

/// 8 bits per weight and 32 per channel (another type for other flags, as bf16).
template <activation_scale Scale = activation_scale::block>
using basic_q8_channel = quantized_by_channel<HMOE_DETAIL_WIDE_PRODUCT, Scale>;
using q8_channel = basic_q8_channel<>;

} // namespace hmoe::backends::formats

#include <hmoe/core/macros_on.hpp>
