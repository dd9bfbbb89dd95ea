// SPDX-License-Identifier: MIT
#include <hmoe/statistics/expert_load.hpp>
#include <hmoe/statistics/imbalance.hpp>

#include "statistics/assignments.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace hmoe::statistics;

TEST_CASE("MaxVio: 0 at balance, N − 1 when one expert has all, 0 of nothing") {
  CHECK(max_violation(std::vector<std::uint64_t>{3, 3, 3}) == 0);
  CHECK(max_violation(std::vector<std::uint64_t>{0, 12, 0, 0}) == 3);
  CHECK(max_violation(std::vector<double>{1, 2, 6}) == doctest::Approx(1).epsilon(1e-14));
  CHECK(max_violation(std::vector<double>{0, 0}) == 0);
  CHECK(max_violation(std::vector<double>{}) == 0);
}

TEST_CASE("tokens may be balanced where FLOPs are not, and the other way round") {
  const std::vector<double> flops{10, 20, 30};
  expert_load even(3), fair(3);
  even.add(support::make_assignment({{0}, {1}, {2}}));
  CHECK(max_violation(even.tokens_per_expert) == 0);
  CHECK(max_violation(even.times(flops)) == doctest::Approx(0.5).epsilon(1e-14));
  fair.tokens_per_expert = {6, 3, 2}; // ∝ 1/cost
  CHECK(max_violation(fair.tokens_per_expert) > 0.6);
  CHECK(max_violation(fair.times(flops)) == 0);
}

TEST_CASE("coefficient of variation") {
  CHECK(coefficient_of_variation(std::vector<int>{5, 5}) == 0);
  CHECK(coefficient_of_variation(std::vector<int>{0, 0, 0, 8}) == doctest::Approx(std::sqrt(3.0)).epsilon(1e-14));
  CHECK(coefficient_of_variation(std::vector<int>{1, 3}) == doctest::Approx(0.5).epsilon(1e-14));
  CHECK(coefficient_of_variation(std::vector<int>{0, 0}) == 0);
}

TEST_CASE("entropy: ln N at balance, 0 when one expert has all") {
  CHECK(entropy(std::vector<int>{7, 7, 7, 7}) == doctest::Approx(std::log(4.0)).epsilon(1e-14));
  CHECK(entropy(std::vector<int>{0, 9, 0}) == 0);
  CHECK(entropy(std::vector<int>{0, 0}) == 0);
  CHECK(entropy(std::vector<int>{1, 3}) ==
        doctest::Approx(-0.25 * std::log(0.25) - 0.75 * std::log(0.75)).epsilon(1e-14));
}
