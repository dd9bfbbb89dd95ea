// SPDX-License-Identifier: MIT
#include <hmoe/io/checksum.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

TEST_CASE("the checksum by words sees each bit, the order and the number of bytes") {
  CHECK(hmoe::io::word_checksum({}) == hmoe::io::word_checksum({}));
  for (const std::size_t size : {0U, 1U, 31U, 32U, 33U, 64U, 100U}) {
    std::vector<std::byte> bytes(size + 1);
    const auto sum = [&] { return hmoe::io::word_checksum(std::span(bytes).first(size)); };
    std::set<std::uint64_t> sums{sum(), hmoe::io::word_checksum(bytes)};
    std::size_t different = 2;
    for (std::size_t i = 0; i < size; ++i)
      for (unsigned bit = 0; bit < 8; ++bit, ++different) {
        bytes[i] = static_cast<std::byte>(1U << bit);
        sums.insert(sum());
        bytes[i] = {};
      }
    // The uppermost bit of two words of a lane.
    if (size >= 64) {
      const std::uint64_t of_zeros = sum();
      bytes[7] = bytes[39] = std::byte{0x80};
      CHECK(sum() != of_zeros);
    }
    CHECK(sums.size() == different);
  }
}
