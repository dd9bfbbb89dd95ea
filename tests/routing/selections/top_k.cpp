// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/top_k.hpp>

#include "routing/selections/rows.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

using hmoe::index_t;
using hmoe::vector_view;
namespace routing = hmoe::routing;
using namespace rows;

TEST_CASE_TEMPLATE("top_k is the beginning of a sort, ties and NaN included", T, float, double) {
  support::random_source random(1);
  for (std::size_t round = 0; round < 4000; ++round) {
    std::vector<T> row = random_row<T>(random, round);
    if (round % 7 == 0)
      row[random.size(0, row.size() - 1)] = static_cast<T>(not_a_number);
    const std::vector<index_t> order = by_preference(row);
    const std::size_t k = random.size(1, row.size());
    const std::vector<index_t> expected(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k));
    REQUIRE(choose(routing::top_k<>{k}, row) == expected);
  }
}

TEST_CASE("a fixed k gives what the run-time k gives") {
  support::random_source random(2);
  for (std::size_t round = 0; round < 1000; ++round) {
    const auto row = random_row<float>(random, round);
    if (row.size() < 2)
      continue;
    REQUIRE(choose(routing::top_k<1>{}, row) == choose(routing::top_k<>{1}, row));
    REQUIRE(choose(routing::top_k<2>{}, row) == choose(routing::top_k<>{2}, row));
  }
  static_assert(routing::top_k<2>{}.max_selected(8) == 2);
}

TEST_CASE("top_k: what cannot be is refused with the numbers") {
  CHECK(error_of(routing::top_k<>{2}, 2).empty());
  CHECK(error_of(routing::top_k<>{3}, 2) == "hmoe: top_k with k = 3 for 2 experts: k must be 1 to 2");
  CHECK(error_of(routing::top_k<5>{}, 4) == "hmoe: top_k with k = 5 for 4 experts: k must be 1 to 4");
  CHECK(error_of(routing::top_k<>{0}, 4) == "hmoe: top_k with k = 0 for 4 experts: k must be 1 to 4");
  CHECK(error_of(routing::top_k<2, 4>{}, 4).empty());
  CHECK(error_of(routing::top_k<2, 4>{}, 5) == "hmoe: top_k of 4 experts in a router of 5");
  static_assert(routing::top_k<2, 4>{}.max_selected(4) == 2);
}
