// SPDX-License-Identifier: MIT
#include <hmoe/io/gguf_value.hpp>

#include "support/gguf_bytes.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <span>
#include <string>

using hmoe::io::gguf_type;
using hmoe::io::gguf_value;
using support::bytes_of;
using support::gguf_text;
using support::type_bytes;

namespace {
/// The value that these bytes begin with; the bytes must outlive it.
gguf_value read(const std::string& bytes) {
  hmoe::io::byte_reader reader(std::as_bytes(std::span(bytes)), "f");
  const gguf_value value = gguf_value::read(reader, "v");
  CHECK(reader.remaining() == 1); // what stands behind it is left there
  return value;
}
std::string array_of(gguf_type element, std::uint64_t count, const std::string& elements) {
  return type_bytes(gguf_type::array) + type_bytes(element) + bytes_of(count) + elements;
}
} // namespace

TEST_CASE("numbers, texts and arrays") {
  const std::string negative = type_bytes(gguf_type::i16) + bytes_of(std::int16_t{-3}) + "x";
  CHECK(read(negative).number("n") == -3);
  CHECK_THROWS_WITH(static_cast<void>(read(negative).natural("n")), "hmoe: n is -3, needed is a whole number from 0");
  CHECK_THROWS_WITH(static_cast<void>(read(negative).text("n")), "hmoe: n is an i16, needed is a text");
  const std::string real = type_bytes(gguf_type::f64) + bytes_of(2.5) + "x";
  CHECK(read(real).number("n") == 2.5);
  CHECK_THROWS_WITH(static_cast<void>(read(real).natural("n")), "hmoe: n is an f64, needed is a whole number");
  const std::string text = type_bytes(gguf_type::text) + gguf_text("abc") + "x";
  CHECK(read(text).text("t") == "abc");
  CHECK_THROWS_WITH(static_cast<void>(read(text).number("t")), "hmoe: t is a text, needed is a whole number");
  CHECK_THROWS_WITH(static_cast<void>(read(text).elements("t")), "hmoe: t is a text, needed is an array");

  const std::string nested = array_of(gguf_type::array, 2,
                                      type_bytes(gguf_type::u8) + bytes_of(std::uint64_t{3}) + "\x01\x02\x03" +
                                          type_bytes(gguf_type::text) + bytes_of(std::uint64_t{1}) + gguf_text("y")) +
                             "x";
  const auto parts = read(nested).elements("a");
  REQUIRE(parts.size() == 2);
  REQUIRE(parts[0].elements("a").size() == 3);
  CHECK(parts[0].elements("a")[2].natural("n") == 3);
  CHECK(parts[1].element_type() == gguf_type::text);
  CHECK(parts[1].elements("a")[0].text("t") == "y");
}

TEST_CASE("values that their file cannot hold") {
  const auto refused = [](const std::string& bytes) {
    try {
      static_cast<void>(read(bytes));
    } catch (const hmoe::error& e) {
      return std::string(e.what()).substr(6);
    }
    return std::string("nothing");
  };
  CHECK(refused(bytes_of(std::uint32_t{13})) == "v is of type 13, GGUF has types up to 12");
  CHECK(refused(type_bytes(gguf_type::text) + bytes_of(std::numeric_limits<std::uint64_t>::max()) + "x") ==
        "f says that 18446744073709551615 values of 1 bytes follow, it has 1 bytes left");
  CHECK(refused(array_of(gguf_type::u64, std::uint64_t{1} << 61U, "x")) ==
        "f says that 2305843009213693952 values of 8 bytes follow, it has 1 bytes left");
  CHECK(refused(array_of(gguf_type::text, 2, gguf_text("a") + "1234567")) ==
        "f says that 1 values of 8 bytes follow, it has 7 bytes left");
  CHECK(refused(array_of(gguf_type::text, std::uint64_t{1} << 60U, "x")) ==
        "f says that 1152921504606846976 values of 8 bytes follow, it has 1 bytes left");
  std::string deep = type_bytes(gguf_type::array);
  for (int i = 0; i < 100'000; ++i)
    deep += type_bytes(gguf_type::array) + bytes_of(std::uint64_t{1});
  CHECK(refused(deep) == "v has arrays nested deeper than 4 levels");
}
