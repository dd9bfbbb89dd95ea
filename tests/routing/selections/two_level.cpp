// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/two_level.hpp>

#include "routing/selections/coarse_rows.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <vector>

namespace routing = hmoe::routing;
using namespace coarse;
using support::error_of;

TEST_CASE("two levels: the best groups by their sum, then the best experts of each") {
  support::random_source random(4);
  const std::vector<std::size_t> sizes{1, 4, 2, 3};
  for (int round = 0; round < 500; ++round) {
    const auto row = coarse_row(random, 10, 0, 1.5);
    const std::size_t groups = random.size(1, 4), each = random.size(1, 4);
    std::vector<double> sums;
    std::size_t begin = 0;
    std::vector<std::size_t> begins;
    for (const std::size_t size : sizes) {
      begins.push_back(begin);
      sums.push_back(std::accumulate(row.begin() + static_cast<std::ptrdiff_t>(begin),
                                     row.begin() + static_cast<std::ptrdiff_t>(begin + size), 0.0));
      begin += size;
    }
    ids expected;
    for (const std::size_t g : best(sums, groups)) {
      const std::vector<double> members(row.begin() + static_cast<std::ptrdiff_t>(begins[g]),
                                        row.begin() + static_cast<std::ptrdiff_t>(begins[g] + sizes[g]));
      for (const std::size_t i : best(members, std::min(each, sizes[g])))
        expected.push_back(begins[g] + i);
    }
    const routing::two_level select(sizes, groups, each);
    select.validate(10);
    const auto got = choose(select, row);
    CHECK(got == expected);
    CHECK(got.size() <= select.max_selected(10));
  }
  static_assert(std::is_trivially_copyable_v<routing::two_level>);
  CHECK(error_of([&] { routing::two_level(sizes, 5, 1); }) == "hmoe: two_level picks 5 of 4 groups: it must be 1 to 4");
  CHECK(error_of([&] { routing::two_level(sizes, 1, 5); }) ==
        "hmoe: two_level picks 5 experts of each group: it must be 1 to 4, the size of the largest group");
  CHECK(error_of([&] { routing::two_level(sizes, 1, 1).validate(9); }) ==
        "hmoe: two_level: the groups hold 10 experts, there are 9");
  CHECK(error_of([&] { routing::two_level(std::vector<std::size_t>{2, 0}, 1, 1); }) ==
        "hmoe: two_level: group 1 is empty");
}
