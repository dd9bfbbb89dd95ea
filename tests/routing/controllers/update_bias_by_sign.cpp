// SPDX-License-Identifier: MIT
#include <hmoe/routing/controllers/update_bias_by_sign.hpp>
#include <hmoe/routing/controllers/update_bias_in_proportion.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace routing = hmoe::routing;
using numbers = std::vector<double>;

namespace {
numbers moved(const numbers& load, double rate = 1, std::size_t moving = routing::all_experts) {
  numbers bias(load.size());
  routing::update_bias_by_sign<double>(bias, load, rate, moving);
  return bias;
}
} // namespace

TEST_CASE("experts that are exactly at the mean keep their bias") {
  CHECK(moved({99, 101, 100, 100, 100, 100}, 1e-3) == numbers{1e-3, -1e-3, 0, 0, 0, 0});
  numbers bias(10);
  for (int step = 0; step < 1000; ++step)
    routing::update_bias_by_sign<double>(bias, numbers(10, 7.0), 1e-3);
  CHECK(bias == numbers(10));
  CHECK(moved({1, 2, 3, 50}, 1, 3) == numbers{1, 0, -1, 0});
  CHECK(moved(numbers(7, 0.1)) == numbers(7));        // equal loads that are not whole numbers
  CHECK(moved(numbers(49, 1.0 / 49)) == numbers(49)); // whose mean, term by term, is another number
}

TEST_CASE("whole loads are compared exactly, however large they are") {
  const double large = 0x1p52; // three of them have a sum that double does not hold to the unit
  CHECK(moved({large + 1, large + 2, large + 3}) == numbers{1, 0, -1});
  CHECK(moved({large, large, large + 1}) == numbers{1, 1, -1});
  CHECK(moved({0, 0, 0}) == numbers{0, 0, 0});
  CHECK(moved({0x1p63, 0x1p63, 0x1p62}) == numbers{-1, -1, 1}); // beyond 64 bits: no sum that wraps
  support::random_source random(1);
  for (int round = 0; round < 2000; ++round) {
    numbers load(random.size(1, 9));
    std::size_t sum = 0;
    for (double& value : load) {
      const std::size_t count = random.size(0, 4);
      value = static_cast<double>(count);
      sum += count;
    }
    numbers expected;
    for (const double value : load) {
      const std::size_t own = static_cast<std::size_t>(value) * load.size();
      expected.push_back(own < sum ? 1 : own > sum ? -1 : 0);
    }
    REQUIRE(moved(load) == expected);
  }
}

TEST_CASE("loads that are not finite are refused before a bias moves") {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    numbers bias(2);
    const auto by_sign = support::error_of([&] { routing::update_bias_by_sign<double>(bias, numbers{1, bad}, 0.5); });
    const auto in_proportion =
        support::error_of([&] { routing::update_bias_in_proportion<double>(bias, numbers{1, bad}, 0.5, 0.5); });
    CHECK(by_sign.find("hmoe: the load of expert 1 is ") == 0);
    CHECK(in_proportion == by_sign);
    CHECK(bias == numbers(2));
  }
}

TEST_CASE("the sign rule moves each bias by the rate, toward the mean load") {
  std::vector<double> bias{0, 1, 2, 3};
  const std::vector<double> load{10, 2, 6, 6}; // mean 6
  routing::update_bias_by_sign<double>(bias, load, 0.5);
  CHECK(bias == std::vector<double>{-0.5, 1.5, 2, 3});
  routing::update_bias_by_sign<double>(bias, load, 0.5, 2); // mean of the first two: 6
  CHECK(bias == std::vector<double>{-1, 2, 2, 3});
  CHECK(support::error_of([&] { routing::update_bias_by_sign<double>(bias, std::vector<double>(3), 0.5); }) ==
        "hmoe: a load of 3 experts for a bias of 4");
  CHECK(support::error_of([&] { routing::update_bias_by_sign<double>(bias, load, 0.5, 5); }) ==
        "hmoe: the bias of 5 of 4 experts should move");
  CHECK(support::error_of([&] { routing::update_bias_by_sign<double>(bias, load, std::nan("")); }) ==
        "hmoe: a selection bias cannot move at a rate of nan: it must be finite");
  CHECK(bias == std::vector<double>{-1, 2, 2, 3});
}
