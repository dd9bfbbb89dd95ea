// SPDX-License-Identifier: MIT
#include <hmoe/training/schedule.hpp>

#include <doctest/doctest.h>

#include <limits>

using hmoe::training::warmup_constant;
using hmoe::training::warmup_cosine;

TEST_CASE("warm-up reaches the peak in its last step and stays there") {
  const warmup_constant rate{.peak = 0.5, .warmup_steps = 4};
  CHECK(rate(0, 0) == 0.125);
  CHECK(rate(1, 0) == 0.25);
  CHECK(rate(3, 0) == 0.5);
  CHECK(rate(4, 0.2) == 0.5);
  CHECK(rate(1000000, 1) == 0.5);
  CHECK(warmup_constant{.peak = 2}(0, 0) == 2); // without warm-up
}

TEST_CASE("the cosine goes from the peak over the middle to the floor") {
  const warmup_cosine rate{.peak = 2, .floor = 0.25};
  CHECK(rate(9, 0) == doctest::Approx(2).epsilon(1e-15));
  CHECK(rate(9, 0.5) == doctest::Approx(2 * (1 + 0.25) / 2).epsilon(1e-15));
  CHECK(rate(9, 1) == doctest::Approx(0.5).epsilon(1e-15));
  CHECK(rate(9, 1.0 / 3) == doctest::Approx(2 * (0.25 + 0.75 * 0.75)).epsilon(1e-15)); // cos 60° = ½
  CHECK(rate(9, 1.7) == rate(9, 1)); // beyond the budget it stays at the floor
  double before = rate(0, 0);
  for (int i = 1; i <= 100; ++i) {
    const double now = rate(static_cast<std::uint64_t>(i), i / 100.0);
    CHECK(now < before);
    before = now;
  }
}

TEST_CASE("warm-up and cosine multiply") {
  const warmup_cosine rate{.peak = 1, .warmup_steps = 10, .floor = 0.1};
  CHECK(rate(0, 0) == doctest::Approx(0.1));
  CHECK(rate(4, 0.5) == doctest::Approx(0.5 * 0.55));
  CHECK(rate(10, 0.5) == doctest::Approx(0.55));
  CHECK(warmup_cosine{.peak = 1, .floor = 0}(0, 1) == doctest::Approx(0).epsilon(1e-15));
  CHECK(warmup_cosine{.peak = 1, .floor = 1}(0, 0.7) == doctest::Approx(1));
}

TEST_CASE("progress below 0 or no number is an error") {
  const warmup_cosine rate{.peak = 1};
  CHECK_THROWS_WITH_AS((void)rate(0, -0.5), "hmoe: a schedule needs a progress of at least 0, given is -0.5",
                       hmoe::error);
  CHECK_THROWS_AS((void)rate(0, std::numeric_limits<double>::quiet_NaN()), hmoe::error);
}
