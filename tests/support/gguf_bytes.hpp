// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/io/gguf_value.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace support {

template <class V> std::string bytes_of(V value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
inline std::string type_bytes(hmoe::io::gguf_type type) { return bytes_of(static_cast<std::uint32_t>(type)); }
inline std::string gguf_text(const std::string& text) { return bytes_of(std::uint64_t{text.size()}) + text; }
inline std::string gguf_key(const std::string& key, hmoe::io::gguf_type type, const std::string& value) {
  return gguf_text(key) + type_bytes(type) + value;
}

/// A GGUF file, part by part.
struct gguf_parts {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t tensor_count = 0, key_count = 0;
  std::string keys, tensors, data;
  std::size_t alignment = 32;

  void add_key(const std::string& key, hmoe::io::gguf_type type, const std::string& value) {
    keys += gguf_key(key, type, value);
    ++key_count;
  }
  /// Dimensions in the order of the file, the innermost first; type is ggml's number.
  void add_tensor(const std::string& name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                  std::uint64_t offset) {
    tensors += gguf_text(name) + bytes_of(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t dimension : dimensions)
      tensors += bytes_of(dimension);
    tensors += bytes_of(type) + bytes_of(offset);
    ++tensor_count;
  }
  [[nodiscard]] std::string bytes() const {
    std::string result = magic + bytes_of(version) + bytes_of(tensor_count) + bytes_of(key_count) + keys + tensors;
    result.resize((result.size() + alignment - 1) / alignment * alignment);
    return result + data;
  }
};

} // namespace support
