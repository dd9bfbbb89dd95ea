// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/elementwise.hpp>
#include <hmoe/backends/simd/exponential.hpp>

#include "support/random_matrix.hpp"
#include "support/ulp.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace simd = hmoe::backends::simd_detail;

namespace {

template <class T, class F> std::vector<T> over_vectors(const std::vector<T>& in, F f) {
  std::vector<T> out(in.size());
  simd::for_each_vector<xsimd::batch<T>>(in.size(),
                                         [&](const auto& lanes) { lanes.store(f(lanes.load(in.data())), out.data()); });
  return out;
}

constexpr auto exponential = [](const auto& x) { return simd::exponential(x); };
constexpr auto of_non_positive = [](const auto& x) { return simd::exponential<simd::argument::never_positive>(x); };
constexpr auto sigma = [](const auto& z) { return simd::logistic(z).sigma; };
constexpr auto complement = [](const auto& z) { return simd::logistic(z).complement; };

/// Between the ends of the range where e^x is neither 0 nor infinite, near 0, and tiny.
template <class T> std::vector<T> arguments() {
  const double end = sizeof(T) == 4 ? 104 : 745.2;
  support::random_source random(31);
  std::vector<T> x;
  for (const double scale : {end, end / 10, 1.0, 1e-3, 1e-20})
    for (int i = 0; i < 20000; ++i)
      x.push_back(static_cast<T>(random.real(-scale, scale)));
  return x;
}

template <class T, class Exact> double largest_error(const std::vector<T>& x, const std::vector<T>& got, Exact exact) {
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double expected = exact(static_cast<long double>(x[i]));
    if (expected < static_cast<long double>(std::numeric_limits<T>::max()))
      largest = std::max(largest, support::ulp_error(got[i], expected));
    else
      CHECK(got[i] == std::numeric_limits<T>::infinity());
  }
  return largest;
}

} // namespace

TEST_CASE_TEMPLATE("e^x in vectors errs by no more than the documented 1.1 ulp, subnormal results included", T, float,
                   double) {
  const std::vector<T> x = arguments<T>();
  CHECK(largest_error(x, over_vectors(x, exponential), [](long double z) { return std::exp(z); }) <= 1.1);
  std::vector<T> negative = x;
  for (T& value : negative)
    value = -std::abs(value);
  CHECK(over_vectors(negative, of_non_positive) == over_vectors(negative, exponential));
}

TEST_CASE_TEMPLATE("the logistic function and its complement err by at most 2.5 ulp in either tail", T, float, double) {
  const std::vector<T> x = arguments<T>();
  CHECK(largest_error(x, over_vectors(x, sigma), [](long double z) { return 1 / (1 + std::exp(-z)); }) <= 2.5);
  CHECK(largest_error(x, over_vectors(x, complement), [](long double z) { return 1 / (1 + std::exp(z)); }) <= 2.5);
}

TEST_CASE_TEMPLATE("e^x at the ends of the range", T, float, double) {
  constexpr T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  constexpr T greatest = std::numeric_limits<T>::max();
  const std::vector<T> x{-infinity, -greatest, -1000, T(-0.0), 0, 1000, greatest, infinity, nan};
  const std::vector<T> y = over_vectors(x, exponential), s = over_vectors(x, sigma);
  const std::vector<T> expected{0, 0, 0, 1, 1, infinity, infinity, infinity};
  const std::vector<T> expected_sigma{0, 0, 0, T(0.5), T(0.5), 1, 1, 1};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(x[i]);
    CHECK(y[i] == expected[i]);
    CHECK(s[i] == expected_sigma[i]);
  }
  CHECK(std::isnan(y.back()));
  CHECK(std::isnan(s.back()));
}

TEST_CASE_TEMPLATE("an element has the same bits wherever it stands in a row of any length", T, float, double) {
  support::random_source random(32);
  for (std::size_t size = 0; size < 70; ++size) {
    std::vector<T> x(size);
    for (T& value : x)
      value = static_cast<T>(random.real(-20, 20));
    const std::vector<T> row = over_vectors(x, sigma);
    for (std::size_t i = 0; i < size; ++i) {
      const T alone = over_vectors(std::vector<T>{x[i]}, sigma)[0];
      CHECK(std::memcmp(&alone, &row[i], sizeof(T)) == 0);
    }
  }
}
