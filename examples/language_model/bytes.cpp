// SPDX-License-Identifier: MIT
#include "bytes.hpp"

#include <hmoe/core/error.hpp>

#include <array>
#include <charconv>
#include <fstream>
#include <system_error>

namespace language_model {

std::string to_hex(std::uint64_t value) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  const auto length = static_cast<std::size_t>(end - digits.data());
  return std::string(digits.size() - length, '0').append(digits.data(), length);
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string contents(std::istreambuf_iterator<char>(file), {});
  hmoe::require(file.is_open() && !file.bad(), "cannot read ", path.string());
  return contents;
}

void write_file(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write) {
  if (path.has_parent_path())
    std::filesystem::create_directories(path.parent_path());
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    write(file);
    file.flush();
    if (!file) {
      file.close();
      std::error_code ignored;
      std::filesystem::remove(temporary, ignored);
      throw hmoe::error("cannot write " + path.string() + " (is the disk full or the folder read-only?)");
    }
  }
  std::filesystem::rename(temporary, path);
}

void write_file(const std::filesystem::path& path, std::string_view contents) {
  write_file(path,
             [&](std::ostream& out) { out.write(contents.data(), static_cast<std::streamsize>(contents.size())); });
}

} // namespace language_model
