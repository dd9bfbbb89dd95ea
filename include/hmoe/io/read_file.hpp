// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ios>
#include <system_error>
#include <vector>

namespace hmoe::io {

/// All bytes of a plain file, or of the plain file that a symbolic link leads to. Anything else, and a file that cannot
/// be read, is an hmoe::error that names it.
[[nodiscard]] inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
  std::error_code ignored;
  require(std::filesystem::is_regular_file(path, ignored), path.string(), " is not a file that can be read");
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  require(stream.good(), "cannot read ", path.string());
  std::vector<std::byte> bytes(static_cast<std::size_t>(stream.tellg()));
  stream.seekg(0);
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  require(stream.good(), "reading ", bytes.size(), " bytes of ", path.string(), " failed");
  return bytes;
}

} // namespace hmoe::io
