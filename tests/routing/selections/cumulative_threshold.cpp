// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "routing/selections/coarse_rows.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using namespace coarse;
using support::error_of;

TEST_CASE("the cumulative threshold keeps i while the sum before it is below the limit") {
  support::random_source random(1);
  for (int round = 0; round < 500; ++round) {
    auto row = coarse_row(random, 7, 0, 0.6);
    const double limit = 0.25 * static_cast<double>(random.size(1, 4));
    const std::size_t most = random.size(1, 8);
    ids expected;
    double sum = 0;
    for (const std::size_t e : ranking(row)) {
      sum += row[e];
      if ((sum - row[e] < limit || expected.empty()) && expected.size() < most)
        expected.push_back(e);
    }
    std::sort(expected.begin(), expected.end());
    CHECK(choose(routing::cumulative_threshold{limit, most}, row) == expected);
    if (most >= 7)
      CHECK(choose(routing::top_p{limit}, row) == expected); // sums are exact here, so they agree
  }
  CHECK(error_of([] { routing::cumulative_threshold{1.5}.validate(4); }) ==
        "hmoe: cumulative_threshold with limit = 1.5: it must be in (0, 1]");
  CHECK(error_of([] { routing::cumulative_threshold{0.5, 0}.validate(4); }) ==
        "hmoe: cumulative_threshold with at most 0 experts: it must allow at least 1");
}
