// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/byte_reader.hpp>
#include <hmoe/io/in_quotes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hmoe::io {

/// The types of values in the metadata of GGUF files, with the numbers that they have there.
enum class gguf_type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

namespace detail {
/// Bytes of a value, 0 where they vary.
[[nodiscard]] constexpr std::size_t gguf_bytes(gguf_type type) noexcept {
  constexpr std::size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return bytes[static_cast<std::size_t>(type)];
}
} // namespace detail

/// A value in the metadata of a GGUF file, where it stands in the file. The functions that return its contents take
/// `what`, the words for it in a message: hmoe::error where it is of another type.
class gguf_value {
public:
  /// Takes the value off the front of what is read: its type, then its bytes. hmoe::error where it is longer than the
  /// rest, of an unknown type, or arrays are nested deeper than four levels.
  [[nodiscard]] static gguf_value read(byte_reader& reader, const std::string& what) {
    return read(reader, type_in(reader, what), what, 0);
  }

  [[nodiscard]] gguf_type type() const noexcept { return type_; }
  /// Of an array: how many elements, and their type.
  [[nodiscard]] std::uint64_t size() const noexcept { return count_; }
  [[nodiscard]] gguf_type element_type() const noexcept { return element_; }

  [[nodiscard]] bool boolean(std::string_view what) const {
    require_type(type_ == gguf_type::boolean, what, "true or false");
    return bytes_[0] != std::byte{0};
  }
  [[nodiscard]] std::string_view text(std::string_view what) const {
    require_type(type_ == gguf_type::text, what, "a text");
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }
  /// Any whole number that is not negative.
  [[nodiscard]] std::uint64_t natural(std::string_view what) const {
    switch (type_) {
    case gguf_type::u8:
      return as<std::uint8_t>();
    case gguf_type::u16:
      return as<std::uint16_t>();
    case gguf_type::u32:
      return as<std::uint32_t>();
    case gguf_type::u64:
      return as<std::uint64_t>();
    case gguf_type::i8:
      return not_negative(as<std::int8_t>(), what);
    case gguf_type::i16:
      return not_negative(as<std::int16_t>(), what);
    case gguf_type::i32:
      return not_negative(as<std::int32_t>(), what);
    case gguf_type::i64:
      return not_negative(as<std::int64_t>(), what);
    default:
      require_type(false, what, "a whole number");
      return 0;
    }
  }
  /// Any number, rounded to double.
  [[nodiscard]] double number(std::string_view what) const {
    switch (type_) {
    case gguf_type::f32:
      return static_cast<double>(as<float>());
    case gguf_type::f64:
      return as<double>();
    case gguf_type::i8:
      return as<std::int8_t>();
    case gguf_type::i16:
      return as<std::int16_t>();
    case gguf_type::i32:
      return as<std::int32_t>();
    case gguf_type::i64:
      return static_cast<double>(as<std::int64_t>());
    default:
      return static_cast<double>(natural(what));
    }
  }
  /// Of an array.
  [[nodiscard]] std::vector<gguf_value> elements(std::string_view what) const {
    require_type(type_ == gguf_type::array, what, "an array");
    std::vector<gguf_value> result;
    byte_reader reader(bytes_, std::string(what));
    for (std::uint64_t i = 0; i < count_; ++i)
      result.push_back(read(reader, element_, what, 0)); // its depth was looked at before
    return result;
  }

private:
  static constexpr int deepest = 4;

  gguf_value(gguf_type type, gguf_type element, std::uint64_t count, std::span<const std::byte> bytes)
      : type_(type), element_(element), count_(count), bytes_(bytes) {}

  [[nodiscard]] static gguf_type type_in(byte_reader& reader, std::string_view what) {
    const auto number = reader.value<std::uint32_t>();
    require(number <= static_cast<std::uint32_t>(gguf_type::f64), what, " is of type ", number,
            ", GGUF has types up to ", static_cast<std::uint32_t>(gguf_type::f64));
    return static_cast<gguf_type>(number);
  }
  [[nodiscard]] static gguf_value read(byte_reader& reader, gguf_type type, std::string_view what, int depth) {
    if (type == gguf_type::text)
      return {type, type, 0, reader.bytes(reader.value<std::uint64_t>())};
    if (type != gguf_type::array)
      return {type, type, 0, reader.bytes(detail::gguf_bytes(type))};
    require(depth < deepest, what, " has arrays nested deeper than ", deepest, " levels");
    const gguf_type element = type_in(reader, what);
    const auto count = reader.value<std::uint64_t>();
    if (const std::size_t size = detail::gguf_bytes(element); size != 0) {
      reader.require_room(count, size);
      return {type, element, count, reader.bytes(count * size)};
    }
    // An element takes eight bytes for its length at least: no count is too large to walk to the end.
    reader.require_room(count, sizeof(std::uint64_t));
    byte_reader walk = reader;
    for (std::uint64_t i = 0; i < count; ++i)
      static_cast<void>(read(walk, element, what, depth + 1));
    return {type, element, count, reader.bytes(reader.remaining() - walk.remaining())};
  }

  template <class V> [[nodiscard]] V as() const noexcept {
    V value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }
  [[nodiscard]] static std::uint64_t not_negative(std::int64_t value, std::string_view what) {
    require(value >= 0, what, " is ", value, ", needed is a whole number from 0");
    return static_cast<std::uint64_t>(value);
  }
  void require_type(bool right, std::string_view what, std::string_view needed) const {
    constexpr const char* names[] = {"a u8",          "an i8",  "a u16",    "an i16", "a u32",  "an i32", "an f32",
                                     "true or false", "a text", "an array", "a u64",  "an i64", "an f64"};
    require(right, what, " is ", names[static_cast<std::size_t>(type_)], ", needed is ", needed);
  }

  gguf_type type_, element_;
  std::uint64_t count_;
  std::span<const std::byte> bytes_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
