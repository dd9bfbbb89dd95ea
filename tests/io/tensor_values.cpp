// SPDX-License-Identifier: MIT
#include <hmoe/io/tensor_values.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

using hmoe::io::tensor_type;

namespace {
/// What the values of a type become, read at an odd address.
template <class T, class Stored> std::vector<T> converted(tensor_type type, const std::vector<Stored>& values) {
  const auto& traits = hmoe::io::traits_of(type);
  std::vector<std::byte> bytes(1 + values.size() * sizeof(Stored));
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(Stored));
  std::vector<T> result(values.size() * sizeof(Stored) / traits.block_bytes * traits.block_values);
  hmoe::io::convert_values(type, bytes.data() + 1, result.size(), result.data());
  return result;
}
template <class Stored> std::vector<float> floats(tensor_type type, const std::vector<Stored>& values) {
  return converted<float>(type, values);
}
template <class Stored> std::vector<double> doubles(tensor_type type, const std::vector<Stored>& values) {
  return converted<double>(type, values);
}
using list = std::vector<float>;
} // namespace

TEST_CASE("values of every type, at any address") {
  CHECK(floats<double>(tensor_type::f64, {1.0 + 0x1p-24, -0.5}) == list{1.0F, -0.5F}); // a tie, to the even one
  CHECK(doubles<double>(tensor_type::f64, {1.0 + 0x1p-50}) == std::vector<double>{1.0 + 0x1p-50});
  CHECK(floats<float>(tensor_type::f32, {1.5F, -0x1p-149F}) == list{1.5F, -0x1p-149F});
  CHECK(floats<std::uint16_t>(tensor_type::f16, {0x3c00, 0xc000, 0x7bff, 0x0001}) == list{1, -2, 65504, 0x1p-24F});
  CHECK(floats<std::uint16_t>(tensor_type::bf16, {0x3f80, 0xc000, 0x0001}) == list{1, -2, 0x1p-133F});
  CHECK(std::isnan(floats<std::uint16_t>(tensor_type::bf16, {0x7fc0})[0]));
  CHECK(floats<std::uint8_t>(tensor_type::f8_e4m3, {0x38, 0xb8, 0x7e}) == list{1, -1, 448});
  CHECK(floats<std::uint8_t>(tensor_type::f8_e5m2, {0x3c, 0xbc, 0x7b}) == list{1, -1, 57344});
  CHECK(floats<std::uint8_t>(tensor_type::f8_e8m0, {127, 128, 0}) == list{1, 2, 0x1p-127F});
  CHECK(floats<std::uint8_t>(tensor_type::f4, {0x21, 0xf7}) == list{0.5F, 1, 6, -6}); // the lower half first
  CHECK(floats<std::int64_t>(tensor_type::i64, {-1, 16777217}) == list{-1, 16777216});
  CHECK(doubles<std::int64_t>(tensor_type::i64, {16777217}) == std::vector<double>{16777217});
  CHECK(doubles<std::int32_t>(tensor_type::i32, {-2147483647}) == std::vector<double>{-2147483647});
  CHECK(floats<std::int16_t>(tensor_type::i16, {-32768, 32767}) == list{-32768, 32767});
  CHECK(floats<std::int8_t>(tensor_type::i8, {-128, 127}) == list{-128, 127});
  CHECK(floats<std::uint64_t>(tensor_type::u64, {std::numeric_limits<std::uint64_t>::max()}) == list{0x1p64F});
  CHECK(floats<std::uint32_t>(tensor_type::u32, {4294967295U}) == list{0x1p32F});
  CHECK(floats<std::uint16_t>(tensor_type::u16, {65535}) == list{65535});
  CHECK(floats<std::uint8_t>(tensor_type::u8, {255}) == list{255});
  CHECK(floats<std::uint8_t>(tensor_type::boolean, {0, 1, 2}) == list{0, 1, 1});
}
