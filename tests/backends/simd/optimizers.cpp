// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/training/adamw.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

using namespace hmoe;

TEST_CASE_TEMPLATE("AdamW in vectors: the plain loop to a few units in the last place, for every length", T, float,
                   double) {
  support::random_source random(43);
  const training::adamw_factors<T> by{T(0.75), T(0.9), T(0.95), T(0.01), T(1.25), T(1e-8)};
  struct nothing {};
  for (std::size_t size = 0; size < 70; ++size) {
    std::vector<T> gradient(size), value(size + 1, T(7)), m(size + 1, T(7)), v(size + 1, T(7));
    for (std::size_t i = 0; i < size; ++i) {
      gradient[i] = static_cast<T>(random.real(-1, 1) * std::pow(10, random.real(-3, 3)));
      value[i] = static_cast<T>(random.real(-2, 2));
      m[i] = static_cast<T>(random.real(-1, 1));
      v[i] = static_cast<T>(random.real(0, 1));
    }
    auto expected_value = value, expected_m = m, expected_v = v;
    training::update_adamw(nothing{}, by, size, expected_value.data(), gradient.data(), expected_m.data(),
                           expected_v.data());
    training::update_adamw(backends::simd<>{}, by, size, value.data(), gradient.data(), m.data(), v.data());
    // The sum that is rounded may be far smaller than what it is the sum of.
    const auto near = [&](T a, T b, T terms) {
      return std::abs(a - b) <= 4 * std::numeric_limits<T>::epsilon() * (std::abs(b) + terms);
    };
    for (std::size_t i = 0; i < size; ++i) {
      CAPTURE(i);
      CHECK(near(m[i], expected_m[i], 1 + std::abs(gradient[i])));
      CHECK(near(v[i], expected_v[i], 0));
      CHECK(near(value[i], expected_value[i], 2 + std::abs(m[i] / std::sqrt(v[i])) + T(1) / std::sqrt(v[i])));
    }
    CHECK(value[size] == 7); // nothing behind the end is written
    CHECK(m[size] == 7);
    CHECK(v[size] == 7);
  }
}
