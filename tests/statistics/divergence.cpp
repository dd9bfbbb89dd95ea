// SPDX-License-Identifier: MIT
#include <hmoe/statistics/divergence.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using namespace hmoe::statistics;
using counts = std::vector<std::uint64_t>;

TEST_CASE("KL in nats, with and without smoothing") {
  // p = (1/4, 3/4), q = (1/2, 1/2)
  CHECK(kl_divergence(counts{1, 3}, counts{5, 5}, 0) ==
        doctest::Approx(0.25 * std::log(0.5) + 0.75 * std::log(1.5)).epsilon(1e-14));
  // Half a count more everywhere: p = (1.5, 3.5)/5, q = (0.5, 2.5)/3
  const double p = 0.3, q = 0.5 / 3;
  const double smoothed = p * std::log(p / q) + (1 - p) * std::log((1 - p) / (1 - q));
  CHECK(kl_divergence(counts{1, 3}, counts{0, 2}) == doctest::Approx(smoothed).epsilon(1e-14));
}

TEST_CASE("equal distributions, missing values, nothing at all") {
  CHECK(kl_divergence(counts{1, 2, 3}, counts{2, 4, 6}, 0) == doctest::Approx(0).epsilon(1e-15));
  CHECK(kl_divergence(counts{1, 1}, counts{1, 0}, 0) == std::numeric_limits<double>::infinity());
  CHECK(kl_divergence(counts{1, 0}, counts{1, 1}, 0) == doctest::Approx(std::log(2.0)).epsilon(1e-14));
  CHECK(kl_divergence(counts{0, 0}, counts{1, 1}, 0) == 0);
  CHECK(kl_divergence(counts{}, counts{}) == 0);
}

TEST_CASE("the symmetric divergence, and the matrix of it") {
  hmoe::matrix<std::uint64_t> table(3, 2);
  table(0, 0) = 9;
  table(1, 0) = 1;
  table(1, 1) = 7;
  table(2, 1) = 4;
  const auto all = synergy_matrix(table);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      const double forth = kl_divergence(table.row(i), table.row(j)), back = kl_divergence(table.row(j), table.row(i));
      CHECK(all(i, j) == doctest::Approx((forth + back) / 2).epsilon(1e-13));
      CHECK((i == j ? all(i, j) == 0 : all(i, j) > 0));
    }
  CHECK(all(0, 2) > all(1, 2)); // experts 1 and 2 work on the same token
}

TEST_CASE("mistakes are told") {
  CHECK_THROWS_WITH_AS((void)kl_divergence(counts{1}, counts{1, 2}), doctest::Contains("over 1 and 2 values"),
                       hmoe::error);
  CHECK_THROWS_AS((void)kl_divergence(counts{1}, counts{1}, -1), hmoe::error);
}
