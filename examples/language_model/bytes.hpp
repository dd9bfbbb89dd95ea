// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/io/file_writer.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace language_model {

/// FNV-1a, 64 bits: tells files and configurations apart and finds damage; not meant against attackers.
class checksum {
public:
  checksum& add(std::string_view bytes) {
    for (const char c : bytes)
      value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
    return *this;
  }
  std::uint64_t value() const { return value_; }

private:
  std::uint64_t value_ = 0xCBF29CE484222325U;
};

/// 16 hexadecimal digits.
std::string to_hex(std::uint64_t value);

/// The whole file; throws hmoe::error when it cannot be read, or is a folder.
std::string read_file(const std::filesystem::path& path);

/// Writes a file as hmoe::io::file_writer does, so that `path` is always an intact file: the old one or the new one.
/// Makes its folder where there is none. Throws hmoe::error when writing fails (the old file stays).
void write_file(const std::filesystem::path& path, const std::function<void(hmoe::io::file_writer&)>& write);
void write_file(const std::filesystem::path& path, std::string_view contents);

} // namespace language_model
