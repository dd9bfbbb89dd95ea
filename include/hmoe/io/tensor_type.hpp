// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/scalar.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hmoe::io {

/// How a file stores the values of a tensor. Numbers are little-endian.
enum class tensor_type : std::uint8_t {
  // The types of safetensors files, which hold tensors of the last of them first.
  boolean,
  f4, ///< two in a byte, the first in the lower half: E2M1, a sign, 2 bits of exponent, 1 of fraction
  u8,
  i8,
  f8_e5m2, ///< the upper half of f16
  f8_e4m3, ///< bias 7, no infinity, NaN is 0x7f and 0xff
  f8_e8m0, ///< a power of two, 2^(code − 127); NaN is 0xff
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  f64,
  i64,
  u64,
  // Blocks of weights with scales of their own, in GGUF files (block_values.hpp has their layouts).
  q8_0,
  q4_0,
  q4_1,
  q4_k,
  q6_k,
  mxfp4
};

/// Values of a type come in blocks of so many, which take so many bytes.
struct tensor_type_traits {
  tensor_type type;
  std::string_view name; ///< in safetensors and GGUF files
  std::size_t block_values, block_bytes;
};

/// All types, by their number.
inline constexpr std::array<tensor_type_traits, 23> tensor_types{{
    {tensor_type::boolean, "BOOL", 1, 1},    {tensor_type::f4, "F4", 2, 1},
    {tensor_type::u8, "U8", 1, 1},           {tensor_type::i8, "I8", 1, 1},
    {tensor_type::f8_e5m2, "F8_E5M2", 1, 1}, {tensor_type::f8_e4m3, "F8_E4M3", 1, 1},
    {tensor_type::f8_e8m0, "F8_E8M0", 1, 1}, {tensor_type::i16, "I16", 1, 2},
    {tensor_type::u16, "U16", 1, 2},         {tensor_type::f16, "F16", 1, 2},
    {tensor_type::bf16, "BF16", 1, 2},       {tensor_type::i32, "I32", 1, 4},
    {tensor_type::u32, "U32", 1, 4},         {tensor_type::f32, "F32", 1, 4},
    {tensor_type::f64, "F64", 1, 8},         {tensor_type::i64, "I64", 1, 8},
    {tensor_type::u64, "U64", 1, 8},         {tensor_type::q8_0, "Q8_0", 32, 34},
    {tensor_type::q4_0, "Q4_0", 32, 18},     {tensor_type::q4_1, "Q4_1", 32, 20},
    {tensor_type::q4_k, "Q4_K", 256, 144},   {tensor_type::q6_k, "Q6_K", 256, 210},
    {tensor_type::mxfp4, "MXFP4", 32, 17},
}};

[[nodiscard]] constexpr const tensor_type_traits& traits_of(tensor_type type) noexcept {
  return tensor_types[static_cast<std::size_t>(type)];
}
/// Whether safetensors files can have the type.
[[nodiscard]] constexpr bool in_safetensors(tensor_type type) noexcept { return type <= tensor_type::u64; }
/// The type of that name, or nothing.
[[nodiscard]] constexpr std::optional<tensor_type> tensor_type_named(std::string_view name) noexcept {
  for (const tensor_type_traits& traits : tensor_types)
    if (traits.name == name)
      return traits.type;
  return std::nullopt;
}

namespace detail {
template <class T> constexpr std::optional<tensor_type> type_of() noexcept {
  if constexpr (std::same_as<T, double>)
    return tensor_type::f64;
  else if constexpr (std::same_as<T, float>)
    return tensor_type::f32;
  else if constexpr (std::same_as<T, half>)
    return tensor_type::f16;
  else if constexpr (std::same_as<T, bfloat16>)
    return tensor_type::bf16;
  else if constexpr (std::signed_integral<T>)
    return sizeof(T) == 8   ? tensor_type::i64
           : sizeof(T) == 4 ? tensor_type::i32
           : sizeof(T) == 2 ? tensor_type::i16
                            : tensor_type::i8;
  else if constexpr (std::unsigned_integral<T> && !std::same_as<T, bool>)
    return sizeof(T) == 8   ? tensor_type::u64
           : sizeof(T) == 4 ? tensor_type::u32
           : sizeof(T) == 2 ? tensor_type::u16
                            : tensor_type::u8;
  else
    return std::nullopt; // bool, too: a byte of a file may be neither true nor false
}
} // namespace detail

/// A type of this machine that a file's values can be of as they are: float, double, half, bfloat16, whole numbers.
template <class T>
concept tensor_value = detail::type_of<T>().has_value();

/// The stored type that is T.
template <tensor_value T> inline constexpr tensor_type tensor_type_of = *detail::type_of<T>();

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
