// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/top_p.hpp>

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

TEST_CASE_TEMPLATE("top_p is the shortest prefix of a sort that reaches p", T, float, double) {
  support::random_source random(3);
  for (std::size_t round = 0; round < 4000; ++round) {
    const std::vector<T> row = random_row<T>(random, round);
    const std::vector<index_t> order = by_preference(row);
    const double p = random.real(0.01, 1);
    double sum = 0;
    std::vector<index_t> expected;
    for (const index_t e : order) {
      expected.push_back(e);
      sum += double{row[e]};
      if (sum >= p)
        break;
    }
    REQUIRE(choose(routing::top_p{p}, row) == expected);
  }
}

TEST_CASE("top_p at its edges") {
  const std::vector<double> row{0.25, 0.5, 0.25};
  CHECK(choose(routing::top_p{0.5}, row) == std::vector<index_t>{1}); // reaching p is enough
  CHECK(choose(routing::top_p{0.51}, row) == std::vector<index_t>{1, 0});
  CHECK(choose(routing::top_p{1.0}, row) == std::vector<index_t>{1, 0, 2});
  CHECK(choose(routing::top_p{1e-300}, row) == std::vector<index_t>{1}); // at least one
  // Rounding keeps the sum below 1 here, and still every expert is taken once only.
  const std::vector<float> tenths(10, 0.1F - 1e-8F);
  CHECK(choose(routing::top_p{1.0}, tenths).size() == 10);
  // NaN probabilities never reach p: all experts.
  CHECK(choose(routing::top_p{0.6}, std::vector<double>(4, not_a_number)) == std::vector<index_t>{0, 1, 2, 3});
}

TEST_CASE("top_p: what cannot be is refused with the numbers") {
  CHECK(error_of(routing::top_p{1.0}, 4).empty());
  CHECK(error_of(routing::top_p{0.0}, 4) == "hmoe: top_p with p = 0: p must be in (0, 1]");
  CHECK(error_of(routing::top_p{1.5}, 4) == "hmoe: top_p with p = 1.5: p must be in (0, 1]");
  CHECK(error_of(routing::top_p{-0.25}, 4) == "hmoe: top_p with p = -0.25: p must be in (0, 1]");
  CHECK(error_of(routing::top_p{not_a_number}, 4).find("p = nan") != std::string::npos);
}
