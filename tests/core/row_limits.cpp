// SPDX-License-Identifier: MIT
#include <hmoe/core/row_limits.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>

using hmoe::row_limits;

TEST_CASE("rows go to the experts that need most, and to each of them no more than it may have") {
  const std::array<std::size_t, 4> amounts{5, 0, 40, 7};
  const auto amount = [&](std::size_t e) { return amounts[e]; };
  CHECK(row_limits{0, 3}.most(4, amount) == 0);
  CHECK(row_limits{2, 3}.most(4, amount) == 2 * 40);
  CHECK(row_limits{5, 3}.most(4, amount) == 3 * 40 + 2 * 7);
  CHECK(row_limits{100, 3}.most(4, amount) == 3 * (40 + 7 + 5));
  CHECK(row_limits{10, 0}.most(4, amount) == 0);
  CHECK(row_limits{10, 3}.most(0, amount) == 0);
}

TEST_CASE("lists are longer where an expert's rows come in blocks, and pieces never have more rows than a block") {
  const auto longest = [](std::size_t total, std::size_t each, std::size_t block, std::size_t experts,
                          std::size_t most) { // over all ways to share rows among three experts
    std::size_t found = 0;
    const auto pieces = [&](std::size_t rows) {
      std::size_t sum = 0;
      for (; rows != 0; rows -= std::min(rows, block))
        sum += (std::min(rows, block) + most - 1) / most;
      return sum;
    };
    for (std::size_t a = 0; a <= std::min(total, each); ++a)
      for (std::size_t b = 0; experts > 1 ? b <= std::min(total - a, each) : b == 0; ++b)
        found = std::max(found, pieces(a) + pieces(b));
    return found;
  };
  for (const std::size_t block : {1U, 3U, 8U, 20U})
    for (const std::size_t most : {1U, 2U, 3U, 5U, 8U, 30U})
      for (std::size_t total = 0; total < 40; ++total) {
        CAPTURE(block);
        CAPTURE(most);
        CAPTURE(total);
        const row_limits limits{total, total, block};
        CHECK(limits.pieces(2, most) >= longest(total, total, block, 2, most));
        CHECK(limits.entries(2) >= longest(total, total, block, 2, block));
      }
  CHECK(row_limits{7, 5}.entries(4) == 4);
  CHECK(row_limits{3, 5}.entries(4) == 3);
  CHECK(row_limits{7, 5, 1}.entries(4) == 7);
  CHECK(row_limits{7, 5, 2}.entries(1) == 4);
}
