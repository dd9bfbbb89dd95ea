// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/row_operations.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using hmoe::matrix;
using hmoe::vector_view;
using hmoe::backends::simd;

namespace {
template <class T> std::vector<T> row_of(support::random_source& random, std::size_t size) {
  std::vector<T> row(size);
  for (T& value : row)
    value = static_cast<T>(random.real());
  return row;
}
} // namespace

TEST_CASE_TEMPLATE("scaled rows and dot products in vectors, for every rest", T, float, double) {
  support::random_source random(61);
  const double epsilon = std::numeric_limits<T>::epsilon();
  for (std::size_t size = 0; size < 150; ++size) {
    const std::vector<T> a = row_of<T>(random, size), start = row_of<T>(random, size + 1);
    const T weight = static_cast<T>(random.real());
    std::vector<T> sum = start, copy = start; // one element more than there is to do
    hmoe::rows::add_scaled(simd<>{}, weight, vector_view<const T>(a), vector_view<T>(sum.data(), size));
    hmoe::rows::copy_scaled(simd<>{}, weight, vector_view<const T>(a), vector_view<T>(copy.data(), size));
    double product = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const double exact = static_cast<double>(weight) * static_cast<double>(a[i]);
      CHECK(std::abs(static_cast<double>(sum[i]) - (static_cast<double>(start[i]) + exact)) <= 2 * epsilon);
      CHECK(copy[i] == weight * a[i]);
      product += static_cast<double>(a[i]) * static_cast<double>(start[i]);
    }
    CHECK(sum[size] == start[size]);
    CHECK(copy[size] == start[size]);
    const T dot = hmoe::rows::dot(simd<>{}, vector_view<const T>(a), vector_view<const T>(start.data(), size));
    CHECK(std::abs(static_cast<double>(dot) - product) <= epsilon * static_cast<double>(size + 1));
  }
}

TEST_CASE_TEMPLATE("a weighted sum of rows is add_scaled in turn, bit for bit", T, float, double) {
  support::random_source random(62);
  for (const std::size_t size : {1U, 5U, 16U, 31U, 37U, 128U, 130U, 300U})
    for (const std::size_t count : {0U, 1U, 2U, 9U}) {
      const matrix<T> rows = support::random_matrix<T>(random, count, size);
      const std::vector<T> weights = row_of<T>(random, count);
      std::vector<T> sum(size, T(9)), expected(size, T(0));
      hmoe::rows::weighted_sum(
          simd<>{}, count, [&](std::size_t i) { return weights[i]; },
          [&](std::size_t i) { return i == 4 ? vector_view<const T>{} : rows.view().row(i); }, vector_view<T>(sum));
      for (std::size_t i = 0; i < count; ++i)
        if (i != 4) // the row that is not there
          hmoe::rows::add_scaled(simd<>{}, weights[i], rows.view().row(i), vector_view<T>(expected));
      CHECK(sum == expected);
    }
}
