// SPDX-License-Identifier: MIT
#include <hmoe/io/tensor_type.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>

using hmoe::io::tensor_type;
using hmoe::io::tensor_type_of;

TEST_CASE("types stand at their number, each under a name of its own") {
  for (std::size_t i = 0; i < hmoe::io::tensor_types.size(); ++i) {
    const auto type = static_cast<tensor_type>(i);
    CHECK(hmoe::io::traits_of(type).type == type);
    CHECK(hmoe::io::tensor_type_named(hmoe::io::traits_of(type).name) == type);
  }
  CHECK_FALSE(hmoe::io::tensor_type_named("f32").has_value());
  CHECK_FALSE(hmoe::io::tensor_type_named("C64").has_value());
  CHECK(hmoe::io::in_safetensors(tensor_type::u64));
  CHECK_FALSE(hmoe::io::in_safetensors(tensor_type::q8_0));
  CHECK(hmoe::io::traits_of(tensor_type::f4).block_values == 2);
  CHECK(hmoe::io::traits_of(tensor_type::f8_e8m0).block_bytes == 1);
}

TEST_CASE("types of this machine") {
  static_assert(tensor_type_of<float> == tensor_type::f32 && tensor_type_of<double> == tensor_type::f64);
  static_assert(tensor_type_of<hmoe::half> == tensor_type::f16 && tensor_type_of<hmoe::bfloat16> == tensor_type::bf16);
  static_assert(tensor_type_of<std::int64_t> == tensor_type::i64 && tensor_type_of<std::uint8_t> == tensor_type::u8);
  static_assert(tensor_type_of<std::int16_t> == tensor_type::i16 && tensor_type_of<unsigned> == tensor_type::u32);
  static_assert(!hmoe::io::tensor_value<bool> && !hmoe::io::tensor_value<float*>);
  CHECK(hmoe::io::traits_of(tensor_type_of<float>).block_bytes == sizeof(float));
}
