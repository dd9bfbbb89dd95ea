// SPDX-License-Identifier: MIT
#include <hmoe/core/row_limits.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace {
/// The most over all ways to share the rows, tried one by one.
std::size_t most_of_all(const hmoe::row_limits& limits, const std::vector<std::size_t>& amounts, std::size_t e = 0,
                        std::size_t used = 0) {
  if (e == amounts.size())
    return 0;
  std::size_t most = 0;
  for (std::size_t rows = 0; rows <= limits.each && used + rows <= limits.total; ++rows)
    most = std::max(most, rows * amounts[e] + most_of_all(limits, amounts, e + 1, used + rows));
  return most;
}
} // namespace

TEST_CASE("the most that rows can need is reached by the experts that need most") {
  const std::vector<std::size_t> amounts{1, 5, 0, 2};
  const auto amount = [&](std::size_t e) { return amounts[e]; };
  CHECK(hmoe::row_limits{10, 4}.most(4, amount) == 4 * 5 + 4 * 2 + 2 * 1);
  for (std::size_t total = 0; total < 12; ++total)
    for (std::size_t each = 0; each < 5; ++each) {
      CAPTURE(total);
      CAPTURE(each);
      const hmoe::row_limits limits{total, each};
      CHECK(limits.most(4, amount) == most_of_all(limits, amounts));
    }
  CHECK(hmoe::row_limits{3, 3}.most(0, amount) == 0); // no expert
}
