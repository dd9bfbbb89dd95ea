// SPDX-License-Identifier: MIT
#include <hmoe/core/blocks.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <initializer_list>

TEST_CASE("blocks of one size cover everything once, the last one shorter") {
  static_assert(hmoe::blocks_of(0, 4) == 0 && hmoe::blocks_of(1, 4) == 1 && hmoe::blocks_of(8, 4) == 2);
  static_assert(hmoe::round_up(0, 64) == 0 && hmoe::round_up(1, 64) == 64 && hmoe::round_up(128, 64) == 128);
  for (const std::size_t count : {0U, 1U, 63U, 64U, 65U, 200U}) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < hmoe::blocks_of(count, 64); ++i) {
      const hmoe::block_range block = hmoe::block_at(i, 64, count);
      CHECK(block.first == next);
      CHECK(block.count >= 1);
      CHECK(block.count <= 64);
      next += block.count;
    }
    CHECK(next == count);
  }
}

TEST_CASE("even parts cover everything once and differ by one at most") {
  for (const std::size_t count : {1U, 7U, 100U, 1000U})
    for (const std::size_t parts : {1U, 2U, 3U, 7U}) {
      std::size_t next = 0;
      for (std::size_t i = 0; i < parts; ++i) {
        const hmoe::block_range part = hmoe::even_part(i, parts, count);
        CHECK(part.first == next);
        CHECK(part.count >= count / parts);
        CHECK(part.count <= count / parts + 1);
        next += part.count;
      }
      CHECK(next == count);
    }
}
