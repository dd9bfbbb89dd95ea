// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/scalar.hpp>
#include <hmoe/io/block_values.hpp>
#include <hmoe/io/small_floats.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hmoe::io {

static_assert(std::endian::native == std::endian::little,
              "hmoe::io: tensors of files are little-endian, this machine is not: it cannot read them");

namespace detail {
template <class Stored, class T, class Value>
void convert_each(const std::byte* from, std::size_t count, T* to, Value value) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, from + i * sizeof stored, sizeof stored); // at any address
    to[i] = static_cast<T>(value(stored));
  }
}
template <class Block, class T> void convert_blocks(const std::byte* from, std::size_t count, T* to) noexcept {
  for (std::size_t i = 0; i < count; i += Block::size, from += sizeof(Block)) {
    Block block;
    std::memcpy(&block, from, sizeof block);
    float values[Block::size];
    block.dequantize(values);
    for (std::size_t v = 0; v < Block::size; ++v)
      to[i + v] = static_cast<T>(values[v]);
  }
}
} // namespace detail

/// `count` values, a multiple of traits_of(type).block_values, from bytes at any address. To float exact for
/// floating-point types of up to 32 bits, for blocks (block_values.hpp) and for whole numbers of up to 16; F64 and
/// larger whole numbers are rounded to the nearest. To double exact for all but whole numbers of 64 bits. Of BOOL every
/// byte but 0 is 1.
template <float_or_double T>
void convert_values(tensor_type type, const std::byte* from, std::size_t count, T* to) noexcept {
  const auto as_it_is = [](auto value) { return value; };
  switch (type) {
  case tensor_type::f64:
    return detail::convert_each<double>(from, count, to, as_it_is);
  case tensor_type::f32:
    return detail::convert_each<float>(from, count, to, as_it_is);
  case tensor_type::f16:
    return detail::convert_each<half>(from, count, to, [](half value) { return static_cast<float>(value); });
  case tensor_type::bf16:
    return detail::convert_each<bfloat16>(from, count, to, [](bfloat16 value) { return static_cast<float>(value); });
  case tensor_type::f8_e4m3:
    return detail::convert_each<std::uint8_t>(from, count, to, float_of_e4m3);
  case tensor_type::f8_e5m2:
    return detail::convert_each<std::uint8_t>(from, count, to, float_of_e5m2);
  case tensor_type::f8_e8m0:
    return detail::convert_each<std::uint8_t>(from, count, to, float_of_e8m0);
  case tensor_type::f4:
    for (std::size_t i = 0; i < count; ++i)
      to[i] = static_cast<T>(float_of_e2m1(static_cast<unsigned>(from[i / 2]) >> (i % 2 * 4)));
    return;
  case tensor_type::i64:
    return detail::convert_each<std::int64_t>(from, count, to, as_it_is);
  case tensor_type::i32:
    return detail::convert_each<std::int32_t>(from, count, to, as_it_is);
  case tensor_type::i16:
    return detail::convert_each<std::int16_t>(from, count, to, as_it_is);
  case tensor_type::i8:
    return detail::convert_each<std::int8_t>(from, count, to, as_it_is);
  case tensor_type::u64:
    return detail::convert_each<std::uint64_t>(from, count, to, as_it_is);
  case tensor_type::u32:
    return detail::convert_each<std::uint32_t>(from, count, to, as_it_is);
  case tensor_type::u16:
    return detail::convert_each<std::uint16_t>(from, count, to, as_it_is);
  case tensor_type::u8:
    return detail::convert_each<std::uint8_t>(from, count, to, as_it_is);
  case tensor_type::boolean:
    return detail::convert_each<std::uint8_t>(from, count, to, [](std::uint8_t value) { return value != 0 ? 1 : 0; });
  case tensor_type::q8_0:
    return detail::convert_blocks<q8_0_block>(from, count, to);
  case tensor_type::q4_0:
    return detail::convert_blocks<q4_0_block>(from, count, to);
  case tensor_type::q4_1:
    return detail::convert_blocks<q4_1_block>(from, count, to);
  case tensor_type::q4_k:
    return detail::convert_blocks<q4_k_block>(from, count, to);
  case tensor_type::q6_k:
    return detail::convert_blocks<q6_k_block>(from, count, to);
  case tensor_type::mxfp4:
    return detail::convert_blocks<ggml_mxfp4_block>(from, count, to);
  }
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
