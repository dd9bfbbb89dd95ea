// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

using hmoe::index_t;
using hmoe::vector_view;
namespace routing = hmoe::routing;

namespace {
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

template <class T, class Selection> std::vector<index_t> choose(const Selection& select, const std::vector<T>& row) {
  std::vector<index_t> chosen(row.size());
  chosen.resize(select(vector_view<const T>(row), vector_view<index_t>(chosen)));
  return chosen;
}

/// Ids by descending value, ties by ascending id, NaN last: by sorting.
template <class T> std::vector<index_t> by_preference(const std::vector<T>& row) {
  std::vector<index_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), index_t{0});
  std::sort(ids.begin(), ids.end(), [&](index_t a, index_t b) {
    const double left = std::isnan(row[a]) ? -1e300 : double{row[a]},
                 right = std::isnan(row[b]) ? -1e300 : double{row[b]};
    return left != right ? left > right : a < b;
  });
  return ids;
}

/// A row of probabilities; every other one has a few levels only, so that ties abound.
template <class T> std::vector<T> random_row(support::random_source& random, std::size_t round) {
  std::vector<T> row(random.size(1, 12));
  T sum = 0;
  for (T& value : row) {
    const double v = random.real(0, 1);
    value = static_cast<T>(round % 2 == 0 ? std::floor(v * 3) + 0.5 : v + 1e-3);
    sum += value;
  }
  for (T& value : row)
    value /= sum;
  return row;
}

std::string error_of(const auto& select, std::size_t experts) {
  try {
    select.validate(experts);
  } catch (const hmoe::error& e) {
    return e.what();
  }
  return "";
}
} // namespace

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

TEST_CASE("impossible selections are refused with the numbers") {
  CHECK(error_of(routing::top_k<>{2}, 2).empty());
  CHECK(error_of(routing::top_k<>{3}, 2) == "hmoe: top_k with k = 3 for 2 experts: k must be 1 to 2");
  CHECK(error_of(routing::top_k<5>{}, 4) == "hmoe: top_k with k = 5 for 4 experts: k must be 1 to 4");
  CHECK(error_of(routing::top_k<>{0}, 4) == "hmoe: top_k with k = 0 for 4 experts: k must be 1 to 4");
  CHECK(error_of(routing::top_p{1.0}, 4).empty());
  CHECK(error_of(routing::top_p{0.0}, 4) == "hmoe: top_p with p = 0: p must be in (0, 1]");
  CHECK(error_of(routing::top_p{1.5}, 4) == "hmoe: top_p with p = 1.5: p must be in (0, 1]");
  CHECK(error_of(routing::top_p{-0.25}, 4) == "hmoe: top_p with p = -0.25: p must be in (0, 1]");
  CHECK(error_of(routing::top_p{not_a_number}, 4).find("p = nan") != std::string::npos);
  CHECK(error_of(routing::threshold{not_a_number}, 4).find("minimum = nan") != std::string::npos);
}

TEST_CASE("the order of preference is a strict weak order") {
  const std::vector<double> values{1, 1, 2, not_a_number, not_a_number, -1, std::numeric_limits<double>::infinity()};
  for (index_t a = 0; a < values.size(); ++a)
    for (index_t b = 0; b < values.size(); ++b) {
      CHECK(routing::preferred(values[a], a, values[b], b) + routing::preferred(values[b], b, values[a], a) ==
            (a == b ? 0 : 1));
      for (index_t c = 0; c < values.size(); ++c)
        if (routing::preferred(values[a], a, values[b], b) && routing::preferred(values[b], b, values[c], c))
          CHECK(routing::preferred(values[a], a, values[c], c));
    }
}
