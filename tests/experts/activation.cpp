// SPDX-License-Identifier: MIT
#include <hmoe/experts/activation.hpp>

#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace experts = hmoe::experts;

namespace {

// Points in the bend, in the tails and far out; none at 0, where relu has no derivative.
template <class F> void for_each_point(F&& f) {
  for (int i = 0; i < 400; ++i)
    f(-9.975 + 0.05 * i);
  for (const double z : {1e-6, 1e-3, 12.0, 20.0, 40.0, 100.0, 1000.0, 1e4}) {
    f(z);
    f(-z);
  }
}

} // namespace

TEST_CASE("values to 15 digits") {
  // silu(z) = z/(1+e^−z); gelu(z) = z·Φ(z), Φ(1) = 0.841344746068542948…, Φ(−3) = 0.00134989803163009452…;
  // gelu_tanh as PyTorch's approximate="tanh" has it.
  CHECK(experts::silu::value(1.0) == doctest::Approx(0.731058578630004879).epsilon(1e-15));
  CHECK(experts::silu::value(-1.0) == doctest::Approx(-0.268941421369995121).epsilon(1e-15));
  CHECK(experts::silu::derivative(1.0) == doctest::Approx(0.927670511871486730).epsilon(1e-15));
  CHECK(experts::silu::derivative(0.0) == 0.5);
  CHECK(experts::gelu::value(1.0) == doctest::Approx(0.841344746068542949).epsilon(1e-15));
  CHECK(experts::gelu::value(-3.0) == doctest::Approx(-0.00404969409489028357).epsilon(1e-14));
  CHECK(experts::gelu::value(-10.0) == doctest::Approx(-7.61985302416052606e-23).epsilon(1e-12).scale(0));
  CHECK(experts::gelu::derivative(1.0) == doctest::Approx(1.08331547058768629).epsilon(1e-15)); // Φ(1) + φ(1)
  CHECK(experts::gelu::derivative(0.0) == 0.5);
  CHECK(experts::gelu_tanh::value(1.0) == doctest::Approx(0.841191990608276704).epsilon(1e-15));
  CHECK(experts::gelu_tanh::value(-2.0) == doctest::Approx(-0.0454023059122302).epsilon(1e-12));
  CHECK(experts::relu::value(2.5) == 2.5);
  CHECK(experts::relu::value(-2.5) == 0);
  CHECK(experts::relu::derivative(0.0) == 0);
  CHECK(experts::squared_relu::value(3.0) == 9);
  CHECK(experts::squared_relu::derivative(3.0) == 6);
  CHECK(experts::squared_relu::value(-3.0) == 0);
  CHECK(experts::linear::value(-3.5) == -3.5);
  CHECK(experts::linear::derivative(-3.5) == 1);
}

TEST_CASE("the approximation of gelu stays within 5e-4 of gelu") {
  for_each_point([](double z) { CHECK(std::abs(experts::gelu_tanh::value(z) - experts::gelu::value(z)) < 5e-4); });
}

TEST_CASE_TEMPLATE("derivatives agree with central differences", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu, experts::linear) {
  static_assert(hmoe::activation<Activation>);
  for_each_point([](double z) {
    CAPTURE(z);
    const double step = std::min(2e-3 * std::max(1.0, std::abs(z)), std::abs(z) / 4);
    const double numeric = support::central_difference(z, [&] { return Activation::value(z); }, step);
    CHECK(std::abs(Activation::derivative(z) - numeric) <= 1e-8 * std::max(1.0, std::abs(numeric)));
  });
}

TEST_CASE_TEMPLATE("large arguments saturate instead of turning into NaN", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu) {
  for (const double z : {100.0, 1e4}) {
    CHECK(Activation::value(-z) == doctest::Approx(0));
    CHECK(Activation::derivative(-z) == doctest::Approx(0));
    const bool square = std::is_same_v<Activation, experts::squared_relu>;
    CHECK(Activation::value(z) == doctest::Approx(square ? z * z : z));
    CHECK(Activation::derivative(z) == doctest::Approx(square ? 2 * z : 1));
  }
  for (const float z : {1e4F, -1e4F, 0.0F, -0.0F}) {
    CHECK(std::isfinite(Activation::value(z)));
    CHECK(std::isfinite(Activation::derivative(z)));
  }
}

TEST_CASE_TEMPLATE("float and double agree", Activation, experts::silu, experts::gelu, experts::gelu_tanh,
                   experts::relu, experts::squared_relu, experts::linear) {
  for_each_point([](double z) {
    CAPTURE(z);
    const auto narrow = static_cast<float>(z);
    const auto same = static_cast<double>(narrow);
    const auto near = [](float a, double b) {
      return std::abs(static_cast<double>(a) - b) <= 2e-6 * std::max(1.0, std::abs(b));
    };
    CHECK(near(Activation::value(narrow), Activation::value(same)));
    CHECK(near(Activation::derivative(narrow), Activation::derivative(same)));
  });
}
