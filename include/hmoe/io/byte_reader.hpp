// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace hmoe::io {

/// Takes values off the front of a byte array, in the byte order of this machine; hmoe::error when it is too short for
/// them. `name` is what messages call the bytes: the name of the file.
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
  /// The next `count` bytes, where they are.
  [[nodiscard]] std::span<const std::byte> bytes(std::uint64_t count) {
    require_room(count, 1);
    const auto taken = bytes_.first(static_cast<std::size_t>(count));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
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

#include <hmoe/core/macros_on.hpp>
