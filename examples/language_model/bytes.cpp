// SPDX-License-Identifier: MIT
#include "bytes.hpp"

#include <hmoe/core/error.hpp>

#include <array>
#include <charconv>
#include <fstream>
#include <iterator>
#include <span>
#include <system_error>

namespace language_model {

std::string to_hex(std::uint64_t value) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  const auto length = static_cast<std::size_t>(end - digits.data());
  return std::string(digits.size() - length, '0').append(digits.data(), length);
}

std::string read_file(const std::filesystem::path& path) {
  std::error_code ignored;
  hmoe::require(!std::filesystem::is_directory(path, ignored), "cannot read ", path.string(), ": it is a folder");
  std::ifstream file(path, std::ios::binary);
  std::string contents(std::istreambuf_iterator<char>(file), {});
  hmoe::require(file.is_open() && !file.bad(), "cannot read ", path.string());
  return contents;
}

void write_file(const std::filesystem::path& path, const std::function<void(hmoe::io::file_writer&)>& write) {
  if (path.has_parent_path()) {
    std::error_code failure;
    std::filesystem::create_directories(path.parent_path(), failure);
    hmoe::require(!failure, "cannot make the folder ", path.parent_path().string(), ": ", failure.message());
  }
  hmoe::io::file_writer file(path.string());
  write(file);
  file.commit();
}

void write_file(const std::filesystem::path& path, std::string_view contents) {
  write_file(path, [&](hmoe::io::file_writer& file) { file.write(std::as_bytes(std::span(contents))); });
}

} // namespace language_model
