// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/byte_reader.hpp>
#include <hmoe/io/gguf_value.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/memory_map.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

namespace detail {
/// The type that has that number in GGUF files, or nothing.
[[nodiscard]] constexpr std::optional<tensor_type> tensor_type_of_ggml(std::uint32_t number) noexcept {
  switch (number) {
  case 0:
    return tensor_type::f32;
  case 1:
    return tensor_type::f16;
  case 2:
    return tensor_type::q4_0;
  case 3:
    return tensor_type::q4_1;
  case 8:
    return tensor_type::q8_0;
  case 12:
    return tensor_type::q4_k;
  case 14:
    return tensor_type::q6_k;
  case 24:
    return tensor_type::i8;
  case 25:
    return tensor_type::i16;
  case 26:
    return tensor_type::i32;
  case 27:
    return tensor_type::i64;
  case 28:
    return tensor_type::f64;
  case 30:
    return tensor_type::bf16;
  case 39:
    return tensor_type::mxfp4;
  default:
    return std::nullopt;
  }
}
} // namespace detail

/// A GGUF file of version 2 or 3, mapped: what llama.cpp reads. Shapes are row-major, the outermost dimension first,
/// which is the reverse of the order in the file: [experts, rows, cols]. Values of every type of block are read as ggml
/// computes them (block_values.hpp). Everything that the file says of itself is checked when it is opened, before
/// anything of its size is allocated; what is wrong is an hmoe::error with the file, the tensor or key, and the
/// numbers. Big-endian files are refused, and so is a file with a tensor of a type that this library does not read.
/// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The file must not be shortened meanwhile
/// (memory_map).
class gguf_file {
public:
  using key_value = std::pair<std::string, gguf_value>;

  explicit gguf_file(std::string path) : map_(std::move(path)), name_(map_.path()) { read(map_.bytes()); }
  /// Bytes of the caller, which must outlive this object and what it hands out; `name` is what messages call them.
  gguf_file(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) { read(bytes); }

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
  /// Bytes: tensors begin at multiples of it, counted from the first one.
  [[nodiscard]] std::uint32_t alignment() const noexcept { return alignment_; }
  /// Ascending by key.
  [[nodiscard]] std::span<const key_value> metadata() const noexcept { return metadata_; }
  /// The value under that key, or null.
  [[nodiscard]] const gguf_value* metadata(std::string_view key) const noexcept {
    const auto at = std::ranges::lower_bound(metadata_, key, {}, key_of);
    return at != metadata_.end() && at->first == key ? &at->second : nullptr;
  }
  /// Ascending by name.
  [[nodiscard]] std::span<const stored_tensor> tensors() const noexcept { return tensors_; }
  /// The tensor of that name, or null.
  [[nodiscard]] const stored_tensor* find(std::string_view name) const noexcept {
    const auto at = std::ranges::lower_bound(tensors_, name, {}, name_of);
    return at != tensors_.end() && at->name() == name ? &*at : nullptr;
  }
  /// The tensor of that name; hmoe::error where there is none.
  [[nodiscard]] const stored_tensor& at(std::string_view name) const {
    const stored_tensor* found = find(name);
    require(found != nullptr, name_, " has no tensor ", in_quotes(name), "; it has ", tensors_.size(), " others");
    return *found;
  }

private:
  static std::string_view key_of(const key_value& entry) noexcept { return entry.first; }
  static std::string_view name_of(const stored_tensor& tensor) noexcept { return tensor.name(); }
  [[nodiscard]] static std::string text_in(byte_reader& reader) {
    const auto bytes = reader.bytes(reader.value<std::uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  struct place {
    std::string name;
    tensor_type type;
    std::vector<std::size_t> shape;
    std::uint64_t offset, bytes;
  };

  void read(std::span<const std::byte> bytes) {
    byte_reader reader(bytes, name_);
    require(bytes.size() >= 24, name_, " has ", bytes.size(), " bytes, the header of a GGUF file has 24");
    const auto magic = reader.value<std::array<char, 4>>();
    require(magic == std::array<char, 4>{'G', 'G', 'U', 'F'}, name_, " is no GGUF file: it does not start with GGUF");
    version_ = reader.value<std::uint32_t>();
    require((version_ & 0xffffU) != 0, name_, " is a big-endian GGUF file; this library reads little-endian ones");
    require(version_ == 2 || version_ == 3, name_, " is a GGUF file of version ", version_,
            "; this library reads versions 2 and 3");
    const auto tensors = reader.value<std::uint64_t>(), keys = reader.value<std::uint64_t>();
    reader.require_room(keys, 13); // a key of no letters, its type, a value of one byte
    for (std::uint64_t i = 0; i < keys; ++i) {
      std::string key = text_in(reader);
      gguf_value value = gguf_value::read(reader, name_ + ": " + in_quotes(key));
      metadata_.emplace_back(std::move(key), value);
    }
    std::ranges::sort(metadata_, {}, key_of);
    const auto same_key = std::ranges::adjacent_find(metadata_, {}, key_of);
    if (same_key != metadata_.end())
      fail(name_ + " has the key " + in_quotes(same_key->first) + " twice");
    read_alignment();

    reader.require_room(tensors, 24); // a name of no letters, no dimension, type and offset
    std::vector<place> places;
    for (std::uint64_t i = 0; i < tensors; ++i)
      places.push_back(place_in(reader));
    const std::size_t end = bytes.size() - reader.remaining();
    const std::size_t padding = (alignment_ - end % alignment_) % alignment_;
    require(places.empty() || padding <= reader.remaining(), name_, " is truncated: its tensors begin at byte ",
            end + padding, ", it has ", bytes.size());
    add_tensors(places, bytes.subspan(std::min(end + padding, bytes.size())));
  }
  void read_alignment() {
    if (const gguf_value* value = metadata("general.alignment")) {
      const std::uint64_t given = value->natural(name_ + ": general.alignment");
      require(given != 0 && (given & (given - 1)) == 0 && given <= std::numeric_limits<std::uint32_t>::max(), name_,
              ": general.alignment is ", given, ", needed is a power of two of 32 bits");
      alignment_ = static_cast<std::uint32_t>(given);
    }
  }
  [[nodiscard]] place place_in(byte_reader& reader) const {
    place result{text_in(reader), tensor_type::f32, {}, 0, 0};
    const std::string where = name_ + ": tensor " + in_quotes(result.name);
    const auto dimensions = reader.value<std::uint32_t>();
    require(dimensions <= 4, where, " has ", dimensions, " dimensions, GGUF has up to 4");
    std::uint64_t values = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const auto size = reader.value<std::uint64_t>();
      require(size <= std::numeric_limits<std::size_t>::max() &&
                  (size == 0 || values <= std::numeric_limits<std::uint64_t>::max() / 256 / size),
              where, ": dimension ", i, " of ", size, " makes more values than memory can hold");
      values *= size;
      result.shape.push_back(static_cast<std::size_t>(size));
    }
    std::ranges::reverse(result.shape);
    require(std::ranges::find(result.shape, 0U) == result.shape.end(), where, " has a dimension of 0");
    const auto number = reader.value<std::uint32_t>();
    const auto type = detail::tensor_type_of_ggml(number);
    require(type.has_value(), where, " is of ggml's type ", number, ", which this library does not read");
    result.type = *type;
    const tensor_type_traits& traits = traits_of(*type);
    const std::size_t row = result.shape.empty() ? 1 : result.shape.back();
    require(row % traits.block_values == 0, where, " has rows of ", row, " values, and ", traits.name,
            " has blocks of ", traits.block_values);
    result.bytes = values / traits.block_values * traits.block_bytes;
    result.offset = reader.value<std::uint64_t>();
    require(result.offset % alignment_ == 0, where, " begins at byte ", result.offset,
            " of the tensors, which is no multiple of ", alignment_);
    return result;
  }
  void add_tensors(std::vector<place>& places, std::span<const std::byte> data) {
    std::ranges::sort(places, {}, [](const place& p) { return p.offset; });
    std::uint64_t end = 0;
    for (place& p : places) {
      const std::string where = name_ + ": tensor " + in_quotes(p.name);
      require(p.offset <= data.size() && p.bytes <= data.size() - p.offset, where, " is said to be at the bytes ",
              p.offset, " to ", p.offset, " + ", p.bytes, " of the tensors, which have ", data.size());
      require(p.offset >= end, where, " begins at byte ", p.offset, " of the tensors, where another one ends at byte ",
              end, ": they overlap");
      end = p.offset + p.bytes;
      tensors_.emplace_back(name_, std::move(p.name), p.type, std::move(p.shape),
                            data.subspan(static_cast<std::size_t>(p.offset), static_cast<std::size_t>(p.bytes)));
    }
    std::ranges::sort(tensors_, {}, name_of);
    const auto twice = std::ranges::adjacent_find(tensors_, {}, name_of);
    if (twice != tensors_.end())
      fail(name_ + " has the tensor " + in_quotes(twice->name()) + " twice");
  }

  memory_map map_;
  std::string name_;
  std::uint32_t version_ = 0, alignment_ = 32;
  std::vector<key_value> metadata_;
  std::vector<stored_tensor> tensors_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
