// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <sys/stat.h>

#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace hmoe::io {

/// All bytes of a plain file, or of the plain file that a symbolic link leads to. Anything else, and a file that cannot
/// be read, is an hmoe::error that names it. A std::filesystem::path is a string here as well. Needs POSIX.
[[nodiscard]] inline std::vector<std::byte> read_file(const std::string& path) {
  struct stat found{};
  require(::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode), path, " is not a file that can be read");
  struct closer {
    void operator()(std::FILE* file) const noexcept { static_cast<void>(std::fclose(file)); }
  };
  const std::unique_ptr<std::FILE, closer> file(std::fopen(path.c_str(), "rb"));
  require(file != nullptr, "cannot read ", path);
  std::vector<std::byte> bytes(static_cast<std::size_t>(found.st_size));
  require(std::fread(bytes.data(), 1, bytes.size(), file.get()) == bytes.size(), "reading ", bytes.size(), " bytes of ",
          path, " failed");
  return bytes;
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
