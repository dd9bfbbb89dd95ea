// SPDX-License-Identifier: MIT
#include <hmoe/statistics/wasserstein.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace hmoe::statistics;
using counts = std::vector<std::uint64_t>;

namespace {

/// By moving probability greedily from left to right, which is optimal on a line.
double by_transport(std::vector<double> a, std::vector<double> b, const std::vector<double>& sorted_positions) {
  double cost = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const double moved = std::min(a[i], b[j]);
    cost += moved * std::abs(sorted_positions[i] - sorted_positions[j]);
    a[i] -= moved;
    b[j] -= moved;
    a[i] <= b[j] ? ++i : ++j;
  }
  return cost;
}

} // namespace

TEST_CASE("the mean way between two distributions, in the unit of the positions") {
  const std::vector<double> positions{0.9, 0.1, 0.5}; // in no order
  CHECK(wasserstein(counts{1, 0, 0}, counts{0, 1, 0}, positions) == doctest::Approx(0.8).epsilon(1e-14));
  CHECK(wasserstein(counts{1, 0, 0}, counts{0, 0, 7}, positions) == doctest::Approx(0.4).epsilon(1e-14));
  CHECK(wasserstein(counts{1, 1, 0}, counts{0, 0, 1}, positions) == doctest::Approx(0.4).epsilon(1e-14));
  CHECK(wasserstein(counts{2, 4, 6}, counts{1, 2, 3}, positions) == doctest::Approx(0).epsilon(1e-14));
  CHECK(wasserstein(counts{0, 0, 0}, counts{1, 2, 3}, positions) == 0);
  CHECK(wasserstein(counts{}, counts{}, std::vector<double>{}) == 0);
}

TEST_CASE("it is the cost of the best transport") {
  support::random_source random(211);
  for (int trial = 0; trial < 50; ++trial) {
    const std::size_t n = random.size(1, 9);
    std::vector<double> a(n), b(n), positions(n);
    double sum_a = 0, sum_b = 0, x = 0;
    for (std::size_t i = 0; i < n; ++i) {
      sum_a += a[i] = random.real(0.1, 1);
      sum_b += b[i] = random.real(0.1, 1);
      positions[i] = x += random.real(0, 2);
    }
    const double distance = wasserstein(a, b, positions);
    CHECK(wasserstein(b, a, positions) == doctest::Approx(distance).epsilon(1e-13));
    for (std::size_t i = 0; i < n; ++i) {
      a[i] /= sum_a;
      b[i] /= sum_b;
    }
    CHECK(distance == doctest::Approx(by_transport(a, b, positions)).epsilon(1e-10));
  }
}

TEST_CASE("between all experts") {
  hmoe::matrix<std::uint64_t> table(3, 3);
  table(0, 0) = 4;
  table(1, 2) = 2;
  table(2, 0) = table(2, 1) = 1;
  const std::vector<double> positions{0, 1, 3};
  const auto distances = wasserstein_matrix(table, positions);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j)
      CHECK(distances(i, j) == doctest::Approx(wasserstein(table.row(i), table.row(j), positions)).epsilon(1e-14));
  CHECK(distances(0, 1) == 3);
  CHECK(distances(0, 2) == 0.5);
}

TEST_CASE("quantile positions spread the reference evenly over [0, 1]") {
  const std::vector<double> key{5, 1, 3, 3};
  const counts reference{1, 4, 2, 1};
  // In the order 1, 2, 3, 0 with shares 1/2, 1/4, 1/8, 1/8.
  CHECK(quantile_positions(key, reference) == std::vector<double>{15.0 / 16, 0.25, 0.625, 13.0 / 16});
  CHECK(quantile_positions(key, counts{0, 0, 0, 0}) == std::vector<double>(4));
}

TEST_CASE("mistakes are told") {
  const std::vector<double> positions{0, 1};
  CHECK_THROWS_WITH_AS((void)wasserstein(counts{1}, counts{1, 2}, positions), doctest::Contains("has 1 values"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS((void)wasserstein(std::vector{1.0, -1.0}, std::vector{1.0, 1.0}, positions),
                       doctest::Contains("value 1 of a distribution is -1"), hmoe::error);
  CHECK_THROWS_WITH_AS((void)wasserstein(counts{1, 1}, counts{1, 2}, std::vector{0.0, std::nan("")}),
                       doctest::Contains("position 1"), hmoe::error);
}
