// SPDX-License-Identifier: MIT
#include <hmoe/core/scalar_functions.hpp>

#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

#include <cmath>

TEST_CASE("the logistic function and softplus, which it is the derivative of") {
  CHECK(hmoe::logistic(0.0) == 0.5);
  CHECK(hmoe::logistic(1.0) == doctest::Approx(0.731058578630004879).epsilon(1e-15));
  CHECK(hmoe::softplus(0.0) == doctest::Approx(std::log(2.0)).epsilon(1e-15));
  CHECK(hmoe::softplus(1.0) == doctest::Approx(1.31326168751822284).epsilon(1e-15));
  for (double z : {-20.0, -3.5, -0.1, 0.0, 0.1, 2.0, 15.0}) {
    CHECK(hmoe::logistic(z) + hmoe::logistic(-z) == doctest::Approx(1).epsilon(1e-15));
    CHECK(hmoe::softplus(z) - hmoe::softplus(-z) == doctest::Approx(z).epsilon(1e-14));
    const double slope = support::central_difference(z, [&] { return hmoe::softplus(z); });
    CHECK(hmoe::logistic(z) == doctest::Approx(slope).epsilon(1e-8));
  }
}

TEST_CASE("neither overflows") {
  CHECK(hmoe::logistic(-1000.0) == 0);
  CHECK(hmoe::logistic(1000.0) == 1);
  CHECK(hmoe::logistic(-80.0F) == doctest::Approx(std::exp(-80.0)).epsilon(1e-6).scale(0));
  CHECK(hmoe::softplus(1000.0) == 1000);
  CHECK(hmoe::softplus(-80.0F) == doctest::Approx(std::exp(-80.0)).epsilon(1e-6).scale(0));
}
