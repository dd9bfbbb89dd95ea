// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/byte_reader.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json.hpp>
#include <hmoe/io/memory_map.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

namespace detail {
struct safetensors_contents {
  std::vector<stored_tensor> tensors;                        ///< ascending by name
  std::vector<std::pair<std::string, std::string>> metadata; ///< ascending by name
};

struct safetensors_reader {
  static constexpr std::uint64_t largest_header = 100'000'000; ///< the format's own limit
  static constexpr std::size_t length_bytes = 8;

  const std::string& file;
  std::span<const std::byte> data{}; ///< behind the header

  [[nodiscard]] safetensors_contents read(std::span<const std::byte> bytes) {
    require(bytes.size() >= length_bytes, file, " has ", bytes.size(),
            " bytes, too few for a safetensors file, which begins with the length of its header in ", length_bytes);
    byte_reader reader(bytes, file);
    const auto length = reader.value<std::uint64_t>();
    require(length <= largest_header, file, " says that its header has ", length,
            " bytes, more than the format's limit of ", largest_header, ": it is no safetensors file");
    require(length <= reader.remaining(), file, " is truncated, or no safetensors file: it says that its header has ",
            length, " bytes, and ", reader.remaining(), " follow");
    const auto size = static_cast<std::size_t>(length);
    const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + length_bytes, size);
    require(header.starts_with('{'), file, " is no safetensors file: its header does not begin with '{'");
    data = bytes.subspan(length_bytes + size);

    safetensors_contents contents;
    const json_value parsed = parse_json(header, file + ": its header", {.depth = 8});
    for (const auto& [name, value] : parsed.members(file)) {
      if (name == "__metadata__") {
        for (const auto& [key, text] : value.members(file + ": __metadata__"))
          contents.metadata.emplace_back(key, text.text(file + ": __metadata__: " + in_quotes(key)));
      } else {
        contents.tensors.push_back(tensor(name, value));
      }
    }
    require_no_gap(contents.tensors);
    return contents;
  }

private:
  [[nodiscard]] stored_tensor tensor(const std::string& name, const json_value& value) const {
    const std::string where = file + ": tensor " + in_quotes(name);
    const std::string& type_name = value.at("dtype", where).text(where + ": dtype");
    const auto type = tensor_type_named(type_name);
    require(type.has_value() && in_safetensors(*type), where, " is of the type ", in_quotes(type_name),
            ", which this library does not know");
    std::vector<std::size_t> shape;
    std::uint64_t values = 1;
    for (const json_value& dimension : value.at("shape", where).elements(where + ": shape")) {
      const std::uint64_t size = dimension.natural(where + ": shape");
      // The product up to each dimension, so that no later product of some of them can overflow, either.
      require(size <= std::numeric_limits<std::size_t>::max() && (size == 0 || values <= most_values / size), where,
              ": dimension ", shape.size(), " of ", size, " makes more values than memory can hold");
      values *= size;
      shape.push_back(static_cast<std::size_t>(size));
    }
    const tensor_type_traits& traits = traits_of(*type);
    require(values % traits.block_values == 0, where, " has ", values, " values of the type ", traits.name,
            ", of which ", traits.block_values, " share ", traits.block_bytes, " byte");
    const std::uint64_t needed = values / traits.block_values * traits.block_bytes;
    const auto& offsets = value.at("data_offsets", where).elements(where + ": data_offsets");
    require(offsets.size() == 2, where, " has ", offsets.size(), " data_offsets, needed are 2");
    const std::uint64_t begin = offsets[0].natural(where + ": data_offsets"),
                        end = offsets[1].natural(where + ": data_offsets");
    require(begin <= end && end <= data.size(), where, " is said to be at the bytes ", begin, " to ", end,
            " behind the header, where there are ", data.size());
    require(end - begin == needed, where, " is said to be at the bytes ", begin, " to ", end, ", which are ",
            end - begin, "; its shape and type need ", needed);
    return {file, name, *type, std::move(shape),
            data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(needed))};
  }
  /// The format has neither holes nor bytes that two tensors share: data that no tensor owns could hide something.
  void require_no_gap(const std::vector<stored_tensor>& tensors) const {
    std::vector<const stored_tensor*> in_order;
    for (const stored_tensor& t : tensors)
      in_order.push_back(&t);
    const auto begin_of = [&](const stored_tensor& t) {
      return static_cast<std::size_t>(t.bytes().data() - data.data());
    };
    std::ranges::sort(in_order, [&](const stored_tensor* a, const stored_tensor* b) {
      return std::pair(begin_of(*a), a->bytes().size()) < std::pair(begin_of(*b), b->bytes().size());
    });
    std::size_t end = 0;
    for (const stored_tensor* t : in_order) {
      const std::size_t begin = begin_of(*t);
      require(begin >= end, file, ": tensor ", in_quotes(t->name()), " begins at byte ", begin,
              " behind the header, where another one ends at byte ", end, ": they overlap");
      require(begin == end, file, ": no tensor owns the bytes ", end, " to ", begin, " behind the header");
      end = begin + t->bytes().size();
    }
    require(end == data.size(), file, ": no tensor owns the bytes ", end, " to ", data.size(), " behind the header");
  }

  /// The largest block has fewer bytes.
  static constexpr std::uint64_t most_values = std::numeric_limits<std::uint64_t>::max() / 256;
};
} // namespace detail

/// A safetensors file, mapped: the tensors stay where they are, and a bank can work on them without a copy
/// (stored_tensor::view). Everything that the file says of itself is checked when it is opened, before anything of its
/// size is allocated; what is wrong is an hmoe::error with the file, the tensor and the numbers: lengths, offsets and
/// products that are out of range or overflow, tensors that overlap, bytes that no tensor owns, keys that come twice,
/// unknown types. Format: https://huggingface.co/docs/safetensors. It knows each type of it but those of 6 bits and
/// complex numbers. The file must not be shortened meanwhile (memory_map).
class safetensors_file {
public:
  explicit safetensors_file(std::string path)
      : map_(std::move(path)), name_(map_.path()), contents_(detail::safetensors_reader{name_}.read(map_.bytes())) {}
  /// Bytes of the caller, which must outlive this object and what it hands out; `name` is what messages call them.
  safetensors_file(std::span<const std::byte> bytes, std::string name)
      : name_(std::move(name)), contents_(detail::safetensors_reader{name_}.read(bytes)) {}

  /// What messages call the file: its path.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Ascending by name.
  [[nodiscard]] std::span<const stored_tensor> tensors() const noexcept { return contents_.tensors; }
  /// The texts under "__metadata__", ascending by key.
  [[nodiscard]] std::span<const std::pair<std::string, std::string>> metadata() const noexcept {
    return contents_.metadata;
  }
  /// The text under that key, or null.
  [[nodiscard]] const std::string* metadata(std::string_view key) const noexcept {
    for (const auto& [name, text] : contents_.metadata)
      if (name == key)
        return &text;
    return nullptr;
  }
  /// The tensor of that name, or null.
  [[nodiscard]] const stored_tensor* find(std::string_view name) const noexcept {
    const auto at = std::ranges::lower_bound(contents_.tensors, name, {},
                                             [](const stored_tensor& t) { return std::string_view(t.name()); });
    return at != contents_.tensors.end() && at->name() == name ? &*at : nullptr;
  }
  /// The tensor of that name; hmoe::error where there is none.
  [[nodiscard]] const stored_tensor& at(std::string_view name) const {
    const stored_tensor* found = find(name);
    require(found != nullptr, name_, " has no tensor ", in_quotes(name), "; it has ", contents_.tensors.size(),
            " others");
    return *found;
  }

private:
  memory_map map_;
  std::string name_;
  detail::safetensors_contents contents_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
