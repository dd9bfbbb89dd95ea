// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/mlp.hpp>

#include "support/random_matrix.hpp"
#include "support/ulp.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <vector>

using namespace hmoe;
using backends::simd;

namespace {

using wide = long double;

wide sigma(wide z) { return 1 / (1 + std::exp(-z)); }
wide normal(wide z) { return std::erfc(-z / std::numbers::sqrt2_v<wide>) / 2; }
wide gelu_tanh_argument(wide z) {
  return 2 * std::numbers::sqrt2_v<wide> * std::numbers::inv_sqrtpi_v<wide> * (z + 0.044715L * z * z * z);
}

// The definitions with all the digits that there are: the plain activations lose some in their tails.
struct silu {
  using activation = experts::silu;
  static wide value(wide z) { return z * sigma(z); }
  static wide derivative(wide z) { return sigma(z) * (1 + z * sigma(-z)); }
};
struct gelu {
  using activation = experts::gelu;
  static wide value(wide z) { return z * normal(z); }
  static wide derivative(wide z) {
    return normal(z) + z * std::exp(-z * z / 2) * std::numbers::inv_sqrtpi_v<wide> / std::numbers::sqrt2_v<wide>;
  }
};
struct gelu_tanh {
  using activation = experts::gelu_tanh;
  static wide value(wide z) { return z * sigma(gelu_tanh_argument(z)); }
  static wide derivative(wide z) {
    const wide slope = 2 * std::numbers::sqrt2_v<wide> * std::numbers::inv_sqrtpi_v<wide> * (1 + 3 * 0.044715L * z * z);
    return sigma(gelu_tanh_argument(z)) * (1 + z * slope * sigma(-gelu_tanh_argument(z)));
  }
};
template <class Activation> struct exact_in_itself {
  using activation = Activation;
  static wide value(wide z) { return static_cast<wide>(Activation::value(static_cast<double>(z))); }
  static wide derivative(wide z) { return static_cast<wide>(Activation::derivative(static_cast<double>(z))); }
};

// An activation of a user: no vector form of it exists.
struct softsign {
  template <class T> static T value(T z) noexcept { return z / (T(1) + std::abs(z)); }
  template <class T> static T derivative(T z) noexcept { return T(1) / ((T(1) + std::abs(z)) * (T(1) + std::abs(z))); }
};

template <class T> std::vector<T> points(double low, double high) {
  support::random_source random(41);
  std::vector<T> z;
  for (const double scale : {1.0, 0.1, 1e-3, 1e-9})
    for (int i = 0; i < 20001; ++i)
      z.push_back(static_cast<T>(scale * random.real(low, high)));
  return z;
}
template <class Activation, class T> std::vector<T> values(const std::vector<T>& z) {
  std::vector<T> a(z.size());
  experts::activate<Activation>(simd<>{}, vector_view<const T>(z), vector_view<T>(a));
  return a;
}
template <class Activation, class T> std::vector<T> derivatives(const std::vector<T>& z) {
  std::vector<T> d(z.size(), T(1));
  experts::activate_backward<Activation>(simd<>{}, vector_view<const T>(z), vector_view<T>(d));
  return d;
}

/// Values in ulp of themselves; derivatives cross zero, so in ulp of 1.
template <class Definition, class T> void check_errors(double low, double high, double ulp, double derivative_ulp) {
  const std::vector<T> z = points<T>(low, high);
  const std::vector<T> a = values<typename Definition::activation>(z),
                       d = derivatives<typename Definition::activation>(z);
  double largest = 0, largest_of_derivative = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const wide exact = static_cast<wide>(z[i]);
    largest = std::max(largest, support::ulp_error(a[i], Definition::value(exact)));
    const wide error = std::abs(static_cast<wide>(d[i]) - Definition::derivative(exact));
    CHECK_FALSE(std::isnan(d[i]));
    largest_of_derivative =
        std::max(largest_of_derivative, static_cast<double>(error / std::numeric_limits<T>::epsilon()));
  }
  CHECK(largest <= ulp);
  CHECK(largest_of_derivative <= derivative_ulp);
}

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T> std::vector<T> random_row(support::random_source& random, std::size_t size, double scale) {
  std::vector<T> row(size);
  for (T& value : row)
    value = static_cast<T>(random.real(-scale, scale));
  return row;
}

} // namespace

TEST_CASE_TEMPLATE("activations in vectors err by no more than docs/execution.md says", T, float, double) {
  constexpr double far = sizeof(T) == 4 ? 80 : 700, tail = sizeof(T) == 4 ? 13 : 37;
  check_errors<silu, T>(-far, far, 3.5, 2);
  check_errors<gelu, T>(-5, 5, 8, 2.5);
  check_errors<gelu, T>(-tail, tail, 24, 2.5);
  check_errors<gelu_tanh, T>(-3, 3, 18, 2.5);
  check_errors<exact_in_itself<experts::relu>, T>(-5, 5, 0, 0);
  check_errors<exact_in_itself<experts::linear>, T>(-5, 5, 0, 0);
  check_errors<exact_in_itself<experts::squared_relu>, T>(-5, 5, 0.5, 0);
}

TEST_CASE_TEMPLATE("far out, at infinity and at NaN activations are what the plain ones are", T, float, double) {
  constexpr T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> z{0, T(-0.0), 50, 1000, T(1e20), -1000, T(-1e18), infinity, nan};
  const auto check = [&](auto activation) {
    using plain = decltype(activation);
    const std::vector<T> a = values<plain>(z), d = derivatives<plain>(z);
    for (std::size_t i = 0; i < z.size(); ++i) {
      CAPTURE(z[i]);
      const T value = plain::value(z[i]), derivative = plain::derivative(z[i]);
      CHECK((a[i] == value || (std::isnan(a[i]) && std::isnan(value))));
      if (std::isfinite(z[i]) && std::isfinite(derivative))
        CHECK(d[i] == derivative);
    }
    CHECK(std::isnan(a.back()) == std::isnan(plain::value(nan)));
    CHECK(std::isnan(d.back()) == std::isnan(plain::derivative(nan)));
  };
  check(experts::silu{});
  check(experts::gelu{});
  check(experts::gelu_tanh{});
  check(experts::relu{});
  check(experts::squared_relu{});
  check(experts::linear{});
}

TEST_CASE_TEMPLATE("gates in vectors agree with the plain ones in double", T, float, double) {
  support::random_source random(42);
  const auto check = [&](const auto& gate) {
    for (const std::size_t size : {0U, 1U, 3U, 16U, 37U, 200U}) {
      const std::vector<T> g = random_row<T>(random, size, 9), u = random_row<T>(random, size, 9),
                           da = random_row<T>(random, size, 1);
      std::vector<T> a(size), dg(size), du = da;
      experts::apply_gate(simd<>{}, gate, vector_view<const T>(g), vector_view<const T>(u), vector_view<T>(a));
      experts::apply_gate_backward(simd<>{}, gate, vector_view<const T>(g), vector_view<const T>(u), vector_view<T>(dg),
                                   vector_view<T>(du));
      for (std::size_t i = 0; i < size; ++i) {
        const double x = static_cast<double>(g[i]), y = static_cast<double>(u[i]);
        double expected_dg = 0, expected_du = 0;
        gate.backward(x, y, static_cast<double>(da[i]), expected_dg, expected_du);
        const double tolerance = 400 * std::numeric_limits<T>::epsilon();
        CHECK(std::abs(static_cast<double>(a[i]) - gate.value(x, y)) <= tolerance);
        CHECK(std::abs(static_cast<double>(dg[i]) - expected_dg) <= tolerance);
        CHECK(std::abs(static_cast<double>(du[i]) - expected_du) <= tolerance);
      }
    }
  };
  check(experts::gated<experts::silu>{});
  check(experts::gated<experts::gelu>{});
  check(experts::gated<experts::squared_relu>{});
  check(experts::gpt_oss_gate{});
  check(experts::gpt_oss_gate{1.5, 0.9});
  check(experts::clamped<experts::silu>{1.5});
}

TEST_CASE_TEMPLATE("the bits of a gated element do not depend on where it stands", T, float, double) {
  support::random_source random(43);
  const auto check = [&](const auto& gate) {
    const auto forward = [&](const std::vector<T>& g, const std::vector<T>& u) {
      std::vector<T> a(g.size());
      simd<>::gate(gate, vector_view<const T>(g), vector_view<const T>(u), vector_view<T>(a));
      return a;
    };
    const auto backward = [&](const std::vector<T>& g, const std::vector<T>& u, std::vector<T> du) {
      std::vector<T> dg(g.size());
      simd<>::gate_backward(gate, vector_view<const T>(g), vector_view<const T>(u), vector_view<T>(dg),
                            vector_view<T>(du));
      dg.insert(dg.end(), du.begin(), du.end());
      return dg;
    };
    for (std::size_t size = 1; size < 40; ++size) {
      const std::vector<T> g = random_row<T>(random, size, 9), u = random_row<T>(random, size, 9),
                           da = random_row<T>(random, size, 1);
      const std::vector<T> a = forward(g, u), d = backward(g, u, da);
      for (std::size_t i = 0; i < size; ++i) {
        CHECK(same_bits(forward({g[i]}, {u[i]}), {a[i]}));
        CHECK(same_bits(backward({g[i]}, {u[i]}, {da[i]}), {d[i], d[size + i]}));
      }
    }
  };
  check(experts::gated<experts::silu>{});
  check(experts::gated<experts::gelu>{});
  check(experts::gated<experts::gelu_tanh>{});
  check(experts::gpt_oss_gate{});
  check(experts::clamped<experts::silu>{4});
}

TEST_CASE("an activation without a vector form is evaluated as it is") {
  support::random_source random(44);
  const std::vector<float> z = random_row<float>(random, 50, 5);
  const std::vector<float> a = values<softsign>(z), d = derivatives<softsign>(z);
  for (std::size_t i = 0; i < z.size(); ++i) {
    CHECK(a[i] == softsign::value(z[i]));
    CHECK(d[i] == softsign::derivative(z[i]));
  }
  static_assert(!backends::vector_form<softsign>::available);
  static_assert(!backends::vector_form<experts::gated<softsign>>::available);
  static_assert(backends::vector_form<experts::gated<experts::silu>>::available);
}
