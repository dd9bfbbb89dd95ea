// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace hmoe {

/// FNV-1a over 64 bits: finds torn and altered files, and ranks that differ; not malice.
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

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
