// SPDX-License-Identifier: MIT
#include <hmoe/core/row_limits.hpp>

#include <doctest/doctest.h>

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
