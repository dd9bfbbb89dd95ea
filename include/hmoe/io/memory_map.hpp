// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace hmoe::io {

/// The bytes of a plain file, or of the plain file that a symbolic link leads to, mapped to be read: the system reads a
/// page when it is first touched and may drop it again. Anything else, and a file that cannot be mapped, is an
/// hmoe::error that names it. The bytes keep their address when the map is moved. Nobody may shorten the file
/// meanwhile: touching a page that is gone ends the program (SIGBUS). A file that file_writer replaces stays as it was.
/// Needs POSIX.
class memory_map {
public:
  memory_map() = default;
  explicit memory_map(std::string path) : path_(std::move(path)) {
    const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO would wait for a writer
    const auto refuse = [&](const std::string& why) {
      if (descriptor >= 0)
        ::close(descriptor);
      fail("cannot read " + path_ + ": " + why);
    };
    struct stat found{};
    if (descriptor < 0 || ::fstat(descriptor, &found) != 0)
      refuse(reason());
    if (!S_ISREG(found.st_mode))
      refuse(S_ISDIR(found.st_mode) ? "it is a folder" : "it is no plain file");
    if (static_cast<std::uint64_t>(found.st_size) > std::numeric_limits<std::size_t>::max())
      refuse("it is larger than memory can be");
    size_ = static_cast<std::size_t>(found.st_size);
    if (size_ != 0) { // no empty range can be mapped
      void* at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
      if (at == MAP_FAILED)
        refuse(reason());
      data_ = static_cast<const std::byte*>(at);
    }
    ::close(descriptor);
  }
  memory_map(memory_map&& other) noexcept
      : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  memory_map& operator=(memory_map&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  memory_map(const memory_map&) = delete;
  memory_map& operator=(const memory_map&) = delete;
  ~memory_map() {
    if (data_ != nullptr)
      ::munmap(const_cast<std::byte*>(data_), size_);
  }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }

private:
  static std::string reason() { return std::error_code(errno, std::generic_category()).message(); }

  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
