// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/core/scalar.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

/// Quantised weights as they lie on the device: in cells of 16 rows by 32 terms of the sum. A cell has the codes in the
/// order in which the lanes of a warp multiply them (the second operand of mma.sync m16n8k16), then the scales, and is
/// a whole number of packets of 16 bytes. Codes and scales are those of hmoe/core/quantized_block.hpp.
namespace hmoe::backends::cuda_detail {

/// The blocks of hmoe/core/quantized_block.hpp, and what is written like them.
template <class W>
concept weight_block = (!requires { W::size; } || W::size == quantized_block_size) &&
                       requires(const float* values, const W& block, std::size_t i) {
                         { W::quantize(values) } -> std::same_as<W>;
                         { block.value(i) } -> std::same_as<float>;
                       };

inline constexpr std::size_t cell_rows = 16, cell_terms = quantized_block_size;

/// Weight (row, term) of a cell is in half `part` of word `word` of lane `lane`, in step `step` of 16 terms.
struct cell_place {
  std::size_t step, lane, word, part;
};
[[nodiscard]] constexpr cell_place place_in_cell(std::size_t row, std::size_t term) noexcept {
  return {term / 16, row % 8 * 4 + term % 8 / 2, row / 8 * 2 + term % 16 / 8, term % 2};
}

/// What a format keeps of a lane's eight weights of a step (`words` words of 32 bits), and of a block's scale.
///   put(to, word, part, code)   adds a code to a lane's words, which were zero
template <class Block> struct cell_format {
  static_assert(sizeof(Block) == 0,
                "hmoe::backends::cuda: kernels decode q8_block, q4_block, q4_offset_block and mxfp4_block: a block of "
                "your own has no form on the device");
};

template <> struct cell_format<q8_block> {
  static constexpr std::size_t words = 2;
  using scale_type = half;
  [[nodiscard]] static scale_type scale_of(const q8_block& block) noexcept { return block.scale_bits; }
  static void put(std::uint32_t* to, std::size_t word, std::size_t part, std::uint32_t code) noexcept {
    to[word / 2] |= code << (word % 2 * 16 + part * 8);
  }
};

/// Byte w has the two codes of word w.
struct nibble_format {
  static constexpr std::size_t words = 1;
  static void put(std::uint32_t* to, std::size_t word, std::size_t part, std::uint32_t code) noexcept {
    *to |= code << (word * 8 + part * 4);
  }
};
template <> struct cell_format<q4_block> : nibble_format {
  using scale_type = half;
  [[nodiscard]] static scale_type scale_of(const q4_block& block) noexcept { return block.scale_bits; }
};
template <> struct cell_format<q4_offset_block> : nibble_format {
  struct scale_type {
    half scale, offset;
  };
  [[nodiscard]] static scale_type scale_of(const q4_offset_block& block) noexcept {
    return {block.scale_bits, block.offset_bits};
  }
};
/// Halves of 16 bits for the two parts. The bits of words 0 … 2 stand, when shifted left by 3 · word, where bfloat16
/// has its sign (15) and the last bits of exponent and fraction (8, 7, 6); word 3 takes the places that are left.
template <> struct cell_format<mxfp4_block> {
  static constexpr std::size_t words = 1;
  using scale_type = std::uint8_t; ///< the exponent
  [[nodiscard]] static scale_type scale_of(const mxfp4_block& block) noexcept { return block.exponent; }
  static void put(std::uint32_t* to, std::size_t word, std::size_t part, std::uint32_t code) noexcept {
    const std::uint32_t sign = code >> 3U, magnitude = code & 7U;
    const std::uint32_t bits = word < 3 ? (sign << 15U | magnitude << 6U) >> (3 * word)
                                        : sign << 14U | (magnitude >> 2U) << 13U | (magnitude & 3U) << 10U;
    *to |= bits << (16 * part);
  }
};

template <class Block> struct alignas(16) weight_cell {
  using block_type = Block;
  using format = cell_format<Block>;
  using scale_type = typename format::scale_type;

  std::uint32_t codes[2][32][format::words] = {}; ///< by steps of 16 terms, and lanes
  scale_type scales[8][2] = {};                   ///< of row r: [r mod 8][r / 8]

  /// Row `row` of a cell that had none there.
  void set(std::size_t row, const Block& block) noexcept {
    for (std::size_t term = 0; term < cell_terms; ++term) {
      const cell_place at = place_in_cell(row, term);
      format::put(codes[at.step][at.lane], at.word, at.part, block.code(term));
    }
    scales[row % 8][row / 8] = format::scale_of(block);
  }
};

template <class W> struct stored_weight_of {
  using type = W;
};
template <weight_block W> struct stored_weight_of<W> {
  using type = weight_cell<W>;
};
/// What matrices of W consist of on the device: values of W, or cells.
template <class W> using stored_weight = typename stored_weight_of<W>::type;
/// Rows that are stored together.
template <class W> inline constexpr std::size_t stored_together = weight_block<W> ? cell_rows : 1;

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
