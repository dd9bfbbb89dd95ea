// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// Files of plain values, in the byte order of this machine.
namespace hmoe::io {

/// FNV-1a over 64 bits: finds torn and altered files, not malice.
class checksum {
public:
  void add(std::span<const std::byte> bytes) noexcept {
    for (const std::byte b : bytes)
      state_ = (state_ ^ static_cast<std::uint64_t>(b)) * 0x100000001b3ULL;
  }
  [[nodiscard]] std::uint64_t value() const noexcept { return state_; }

private:
  std::uint64_t state_ = 0xcbf29ce484222325ULL;
};

/// A file that appears under its name only when commit() has written all of it: until then it is `path`.partial, which
/// is removed if commit() is never reached. Failures to write are an hmoe::error that names the file.
class file_writer {
public:
  explicit file_writer(std::filesystem::path path)
      : path_(std::move(path)), partial_(path_.string() + ".partial"),
        stream_(partial_, std::ios::binary | std::ios::trunc) {
    require(stream_.good(), "cannot write ", partial_.string());
  }
  file_writer(const file_writer&) = delete;
  file_writer& operator=(const file_writer&) = delete;
  ~file_writer() {
    if (committed_)
      return;
    stream_.close();
    std::error_code ignored;
    std::filesystem::remove(partial_, ignored);
  }

  void write(std::span<const std::byte> bytes) {
    stream_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    require(stream_.good(), "writing ", bytes.size(), " bytes to ", partial_.string(), " failed: is the disk full?");
  }
  /// Goes back to the beginning, to fill in what was not known there.
  void rewind() { stream_.seekp(0); }
  void commit() {
    stream_.close();
    require(!stream_.fail(), "writing ", partial_.string(), " failed: is the disk full?");
    std::error_code failure;
    std::filesystem::rename(partial_, path_, failure);
    require(!failure, "cannot rename ", partial_.string(), " to ", path_.string(), ": ", failure.message());
    committed_ = true;
  }

private:
  std::filesystem::path path_, partial_;
  std::ofstream stream_;
  bool committed_ = false;
};

/// All bytes of a file.
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

/// Takes values off the front of a byte array; hmoe::error when it is too short for them.
class byte_reader {
public:
  byte_reader(std::span<const std::byte> bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}

  [[nodiscard]] std::size_t remaining() const noexcept { return bytes_.size(); }
  template <class V> [[nodiscard]] V value() {
    V result;
    values(&result, 1);
    return result;
  }
  /// `count` values to `to`.
  template <class V> void values(V* to, std::uint64_t count) {
    static_assert(std::is_trivially_copyable_v<V>, "hmoe::io::byte_reader: V holds more than plain values");
    require_room(count, sizeof(V));
    const auto size = static_cast<std::size_t>(count) * sizeof(V);
    if (size != 0)
      std::memcpy(to, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }
  /// Throws unless there are `count` values of `size` bytes left: ask before making room for what a file says it has.
  void require_room(std::uint64_t count, std::size_t size) const {
    require(count <= bytes_.size() / size, name_, " says that ", count, " values of ", size, " bytes follow, it has ",
            bytes_.size(), " bytes left");
  }

private:
  std::span<const std::byte> bytes_;
  std::string name_;
};

} // namespace hmoe::io
