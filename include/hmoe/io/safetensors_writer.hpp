// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/io/file_writer.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json_text.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

/// Collects tensors, which stay the caller's until write(), and writes them as a safetensors file. The file depends on
/// the tensors and the metadata alone, not on the order in which they were added: types that need the widest alignment
/// come first, and tensors of a type ascend by name, as the format's own library orders them. So every tensor lies at
/// an address that its type can have.
class safetensors_writer {
public:
  /// A text under "__metadata__"; the last one under a key counts.
  void set_metadata(const std::string& key, std::string text) {
    require(is_utf8(key) && is_utf8(text), "the metadata under ", in_quotes(key),
            " is not UTF-8, which safetensors needs");
    metadata_.insert_or_assign(key, std::move(text));
  }
  /// Values as they lie in a file. hmoe::error where their number of bytes does not fit type and shape, or the name is
  /// taken.
  void add(std::string name, tensor_type type, std::vector<std::size_t> shape, std::span<const std::byte> bytes) {
    add_rows(std::move(name), type, std::move(shape), {bytes.data(), 1, bytes.size(), bytes.size()});
  }
  /// A matrix, as [rows, cols].
  template <tensor_value T> void add(std::string name, matrix_view<const T> values) {
    add(std::move(name), values, {values.rows(), values.cols()});
  }
  /// A matrix under another shape of as many values.
  template <tensor_value T> void add(std::string name, matrix_view<const T> values, std::vector<std::size_t> shape) {
    add_rows(std::move(name), tensor_type_of<T>, std::move(shape),
             {reinterpret_cast<const std::byte*>(values.data()), values.rows(), values.cols() * sizeof(T),
              values.stride() * sizeof(T)});
  }

  /// A tensor that is made while it is written: fill(r, to) writes the bytes of row r, of `rows` equal ones. So a file
  /// may be larger than memory.
  void add(std::string name, tensor_type type, std::vector<std::size_t> shape, std::size_t rows, std::size_t row_bytes,
           std::function<void(std::size_t, std::span<std::byte>)> fill) {
    add_rows(std::move(name), type, std::move(shape), {nullptr, rows, row_bytes, 0, std::move(fill)});
  }
  /// The first tensor begins at a multiple of so many bytes (a power of two, 8 unless given), and so do the next ones
  /// where the sizes of those before allow it.
  void align_to(std::size_t bytes) {
    require(bytes >= 8 && std::has_single_bit(bytes), "the alignment of a safetensors file is ", bytes,
            ": give a power of two from 8 on");
    alignment_ = bytes;
  }

  /// Writes the file as file_writer does: it appears under its name when it is complete.
  void write(const std::string& path) const {
    std::vector<const entry*> in_order;
    for (const auto& [name, tensor] : tensors_)
      in_order.push_back(&tensor);
    std::ranges::sort(in_order, [](const entry* a, const entry* b) {
      return a->type != b->type ? a->type > b->type : a->name < b->name;
    });
    const std::string header = header_of(in_order);
    const std::uint64_t length = header.size();
    static_assert(std::endian::native == std::endian::little, "hmoe::io: safetensors files are little-endian");

    file_writer file(path);
    file.write(std::as_bytes(std::span(&length, 1)));
    file.write(std::as_bytes(std::span(header)));
    std::vector<std::byte> made;
    for (const entry* tensor : in_order)
      for (std::size_t r = 0; r < tensor->values.rows; ++r) {
        if (tensor->values.fill) {
          made.resize(tensor->values.row_bytes);
          tensor->values.fill(r, made);
          file.write(made);
        } else {
          file.write({tensor->values.data + r * tensor->values.stride, tensor->values.row_bytes});
        }
      }
    file.commit();
  }

private:
  struct rows_of_bytes {
    const std::byte* data;
    std::size_t rows, row_bytes, stride;
    std::function<void(std::size_t, std::span<std::byte>)> fill{}; ///< makes a row; empty: it is at `data`
  };
  struct entry {
    std::string_view name;
    tensor_type type;
    std::vector<std::size_t> shape;
    rows_of_bytes values;
  };

  void add_rows(std::string name, tensor_type type, std::vector<std::size_t> shape, rows_of_bytes values) {
    const std::string where = "tensor " + in_quotes(name);
    require(is_utf8(name), where, ": its name is not UTF-8, which safetensors needs");
    require(name != "__metadata__", where, ": the format keeps this name for the metadata");
    const tensor_type_traits& traits = traits_of(type);
    require(in_safetensors(type), where, " is of the type ", traits.name, ", which safetensors does not have");
    std::size_t count = 1;
    for (const std::size_t dimension : shape)
      require(!__builtin_mul_overflow(count, dimension, &count), where,
              ": its shape has more values than memory can hold");
    const std::size_t bytes = values.rows * values.row_bytes;
    require(count % traits.block_values == 0 && bytes % traits.block_bytes == 0 &&
                count / traits.block_values == bytes / traits.block_bytes,
            where, " is of ", count, " values of ", traits.name, " by its shape, given are ", bytes, " bytes");
    const auto [place, added] = tensors_.try_emplace(std::move(name));
    require(added, where, " was added before");
    place->second = {place->first, type, std::move(shape), std::move(values)};
  }
  [[nodiscard]] std::string header_of(const std::vector<const entry*>& tensors) const {
    std::string header = "{";
    if (!metadata_.empty()) {
      header += "\"__metadata__\":{";
      for (const auto& [key, text] : metadata_) {
        append_json_string(header, key);
        header += ':';
        append_json_string(header, text);
        header += ',';
      }
      header.back() = '}';
      header += ',';
    }
    std::size_t offset = 0;
    for (const entry* tensor : tensors) {
      append_json_string(header, tensor->name);
      header.append(":{\"dtype\":\"").append(traits_of(tensor->type).name).append("\",\"shape\":[");
      for (std::size_t i = 0; i < tensor->shape.size(); ++i)
        header.append(i == 0 ? "" : ",").append(std::to_string(tensor->shape[i]));
      header.append("],\"data_offsets\":[").append(std::to_string(offset)).append(",");
      offset += tensor->values.rows * tensor->values.row_bytes;
      header.append(std::to_string(offset)).append("]},");
    }
    if (header.back() == ',')
      header.pop_back();
    header += '}';
    const std::size_t before = sizeof(std::uint64_t) + header.size(); // readers skip white space behind the header
    return header.append((alignment_ - before % alignment_) % alignment_, ' ');
  }

  std::size_t alignment_ = 8;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, entry> tensors_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
