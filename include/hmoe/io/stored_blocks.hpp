// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/block_values.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

/// Blocks of 32 weights in files as those of core/quantized_block.hpp: the same scales and codes, so the same values.
namespace hmoe::io {

/// The blocks of GGUF files that a Block of core/quantized_block.hpp can hold, each with 32 codes and the same formula.
template <class Block> [[nodiscard]] constexpr bool is_stored_as(tensor_type type) noexcept {
  if constexpr (std::same_as<Block, q8_block>)
    return type == tensor_type::q8_0;
  else if constexpr (std::same_as<Block, q4_block>)
    return type == tensor_type::q4_0;
  else if constexpr (std::same_as<Block, q4_offset_block>)
    return type == tensor_type::q4_1;
  else if constexpr (std::same_as<Block, mxfp4_block>)
    return type == tensor_type::mxfp4;
  else
    return false;
}

namespace detail {
/// Codes i and i + 16 in a byte become codes 2i and 2i + 1.
[[nodiscard]] inline hmoe::detail::nibbles<> nibbles_of_halves(const std::uint8_t* halves) noexcept {
  hmoe::detail::nibbles<> codes;
  for (std::size_t i = 0; i < quantized_block_size / 2; ++i) {
    codes.set(i, halves[i] & 15U);
    codes.set(i + quantized_block_size / 2, static_cast<std::uint8_t>(halves[i] >> 4U));
  }
  return codes;
}
template <class Stored> [[nodiscard]] Stored block_at(const std::byte* bytes) noexcept {
  Stored stored;
  std::memcpy(&stored, bytes, sizeof stored);
  return stored;
}
} // namespace detail

/// The block at `bytes`, of the type that is_stored_as<Block>.
template <class Block> [[nodiscard]] Block block_from(const std::byte* bytes) noexcept {
  if constexpr (std::same_as<Block, q8_block>) {
    const auto stored = detail::block_at<q8_0_block>(bytes);
    Block block{stored.d, {}};
    for (std::size_t i = 0; i < quantized_block_size; ++i)
      block.codes[i] = static_cast<std::uint8_t>(stored.q[i] + Block::zero);
    return block;
  } else if constexpr (std::same_as<Block, q4_block>) {
    const auto stored = detail::block_at<q4_0_block>(bytes);
    return {stored.d, detail::nibbles_of_halves(stored.q)};
  } else if constexpr (std::same_as<Block, q4_offset_block>) {
    const auto stored = detail::block_at<q4_1_block>(bytes);
    return {stored.d, stored.m, detail::nibbles_of_halves(stored.q)};
  } else {
    static_assert(std::same_as<Block, mxfp4_block>, "hmoe::io::block_from: no stored type is such a Block");
    const auto stored = detail::block_at<ggml_mxfp4_block>(bytes);
    return {stored.e, detail::nibbles_of_halves(stored.q)};
  }
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
