// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/threshold.hpp>

#include "routing/selections/rows.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

using hmoe::index_t;
using hmoe::vector_view;
namespace routing = hmoe::routing;
using namespace rows;

TEST_CASE_TEMPLATE("threshold takes every expert at or above it, perhaps none", T, float, double) {
  support::random_source random(4);
  for (std::size_t round = 0; round < 2000; ++round) {
    const std::vector<T> row = random_row<T>(random, round);
    const double minimum = random.size(0, 3) == 0 ? double{row[0]} : random.real(0, 0.5);
    std::vector<index_t> expected;
    for (index_t e = 0; e < row.size(); ++e)
      if (double{row[e]} >= minimum)
        expected.push_back(e);
    REQUIRE(choose(routing::threshold{minimum}, row) == expected);
  }
  CHECK(choose(routing::threshold{0.9}, std::vector<T>(4, T(0.25))).empty());
}

TEST_CASE("threshold takes experts whose probability is NaN, so that it reaches the output") {
  CHECK(choose(routing::threshold{0.3}, std::vector<double>{0.5, not_a_number, 0.2}) == std::vector<index_t>{0, 1});
}

TEST_CASE("threshold: what cannot be is refused with the numbers") {
  CHECK(error_of(routing::threshold{not_a_number}, 4).find("minimum = nan") != std::string::npos);
}
