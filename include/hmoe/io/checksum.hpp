// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/checksum.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace hmoe::io {

using hmoe::checksum;

/// For many bytes, at the speed of memory: the same idea on four lanes of 64-bit words, whose upper halves are mixed
/// into the lower ones, then FNV-1a of the lanes, the bytes that fill no word of each lane, and the number of bytes.
[[nodiscard]] inline std::uint64_t word_checksum(std::span<const std::byte> bytes) noexcept {
  constexpr std::size_t lanes = 4, step = lanes * sizeof(std::uint64_t);
  std::uint64_t states[lanes] = {1, 2, 3, 4};
  const std::uint64_t size = bytes.size();
  for (; bytes.size() >= step; bytes = bytes.subspan(step)) {
    std::uint64_t words[lanes];
    std::memcpy(words, bytes.data(), step);
    for (std::size_t l = 0; l < lanes; ++l) {
      states[l] = (states[l] ^ words[l]) * 0x9e3779b97f4a7c15ULL;
      states[l] ^= states[l] >> 32U;
    }
  }
  checksum sum;
  sum.add(std::as_bytes(std::span(states)));
  sum.add(bytes);
  sum.add(std::as_bytes(std::span(&size, 1)));
  return sum.value();
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
