// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/backend.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::backends::reference;

namespace {

// Σ_k a_ik b_kj as a sum over plain nested vectors in long double: shares nothing with the backend.
using table = std::vector<std::vector<long double>>;

template <class T> table table_of(const matrix<T>& m, bool transposed = false) {
  table result(transposed ? m.cols() : m.rows(), std::vector<long double>(transposed ? m.rows() : m.cols()));
  for (std::size_t r = 0; r < m.rows(); ++r)
    for (std::size_t c = 0; c < m.cols(); ++c)
      (transposed ? result[c][r] : result[r][c]) = m(r, c);
  return result;
}

template <class T> double largest_error(const matrix<T>& c, const table& a, const table& b, const matrix<T>& added) {
  double largest = 0;
  for (std::size_t i = 0; i < c.rows(); ++i)
    for (std::size_t j = 0; j < c.cols(); ++j) {
      long double sum = added.size() == 0 ? 0 : static_cast<long double>(added(i, j));
      for (std::size_t k = 0; k < b.size(); ++k)
        sum += a[i][k] * b[k][j];
      const double error = static_cast<double>(std::abs(static_cast<long double>(c(i, j)) - sum));
      largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(largest, error);
    }
  return largest;
}

} // namespace

TEST_CASE_TEMPLATE("the four products against nested vectors in long double", T, float, double) {
  const double tolerance = std::same_as<T, float> ? 1e-6 : 1e-14;
  support::random_source random(21);
  for (int round = 0; round < 60; ++round) {
    const std::size_t m = random.size(0, 9), n = random.size(0, 9), k = random.size(0, 9);
    const auto x = support::random_matrix<T>(random, m, k), y = support::random_matrix<T>(random, k, n);
    const auto yt = support::random_matrix<T>(random, n, k), xt = support::random_matrix<T>(random, k, m);
    const auto before = support::random_matrix<T>(random, m, n);
    const matrix<T> zero;

    matrix<T> c = before; // garbage that must not show
    reference::multiply_transposed(x.view(), yt.view(), c.view());
    CHECK(largest_error(c, table_of(x), table_of(yt, true), zero) < tolerance);
    c = before;
    reference::multiply(x.view(), y.view(), c.view());
    CHECK(largest_error(c, table_of(x), table_of(y), zero) < tolerance);
    c = before;
    reference::accumulate(x.view(), y.view(), c.view());
    CHECK(largest_error(c, table_of(x), table_of(y), before) < tolerance);
    c = before;
    reference::accumulate_transposed(xt.view(), y.view(), c.view());
    CHECK(largest_error(c, table_of(xt, true), table_of(y), before) < tolerance);
  }
}

TEST_CASE("a product by hand") {
  matrix<float> a(2, 2), b(2, 2), c(2, 2);
  const float values_a[] = {1, 2, 3, 4}, values_b[] = {5, 6, 7, 8};
  std::memcpy(a.data(), values_a, sizeof values_a);
  std::memcpy(b.data(), values_b, sizeof values_b);
  const auto is = [&](float c00, float c01, float c10, float c11) {
    return c(0, 0) == c00 && c(0, 1) == c01 && c(1, 0) == c10 && c(1, 1) == c11;
  };
  reference::multiply(a.view(), b.view(), c.view());
  CHECK(is(19, 22, 43, 50));
  reference::accumulate(a.view(), b.view(), c.view());
  CHECK(is(38, 44, 86, 100));
  reference::multiply_transposed(a.view(), b.view(), c.view());
  CHECK(is(17, 23, 39, 53));
  reference::accumulate_transposed(a.view(), b.view(), c.view());
  CHECK(is(17 + 26, 23 + 30, 39 + 38, 53 + 44));
}

TEST_CASE("sums of floats are kept in double and rounded once") {
  constexpr std::size_t k = 3;
  matrix<float> a(1, k), b(1, k), c(1, 1);
  a(0, 0) = 1e8F;
  a(0, 1) = 1.0F;
  a(0, 2) = -1e8F;
  for (std::size_t i = 0; i < k; ++i)
    b(0, i) = 1;
  reference::multiply_transposed(a.view(), b.view(), c.view());
  CHECK(c(0, 0) == 1.0F); // in float it would be 0
}

TEST_CASE("an infinity or NaN is passed on") {
  matrix<double> a(1, 2), b(1, 2), c(1, 1);
  a(0, 0) = std::numeric_limits<double>::infinity();
  a(0, 1) = 1;
  b(0, 0) = 1;
  reference::multiply_transposed(a.view(), b.view(), c.view());
  CHECK(std::isinf(c(0, 0)));
  b(0, 0) = 0;
  reference::multiply_transposed(a.view(), b.view(), c.view());
  CHECK(std::isnan(c(0, 0)));
}

TEST_CASE("nothing outside of a strided output is written") {
  support::random_source random(22);
  const auto a = support::random_matrix<double>(random, 4, 3), b = support::random_matrix<double>(random, 3, 5);
  matrix<double> around(6, 9), plain(4, 5);
  for (std::size_t i = 0; i < around.size(); ++i)
    around.data()[i] = 77;
  const auto inner = around.view().row_block(1, 4).column_block(2, 5);
  reference::multiply(a.view(), b.view(), inner);
  reference::multiply(a.view(), b.view(), plain.view());
  CHECK(support::largest_difference(inner, plain.view()) == 0);
  std::size_t untouched = 0;
  for (std::size_t i = 0; i < around.size(); ++i)
    untouched += around.data()[i] == 77 ? 1U : 0U;
  CHECK(untouched == around.size() - inner.size());
}

TEST_CASE_TEMPLATE("the bits of a row do not depend on the rows beside it", T, float, double) {
  support::random_source random(23);
  for (int round = 0; round < 20; ++round) {
    const std::size_t rows = random.size(2, 40), k = random.size(1, 70), n = random.size(1, 40);
    const auto x = support::random_matrix<T>(random, rows, k), w = support::random_matrix<T>(random, n, k);
    const auto v = support::random_matrix<T>(random, k, n);
    matrix<T> all_transposed(rows, n), all(rows, n), added(rows, n);
    reference::multiply_transposed(x.view(), w.view(), all_transposed.view());
    reference::multiply(x.view(), v.view(), all.view());
    reference::accumulate(x.view(), v.view(), added.view());
    const std::size_t first = random.size(0, rows - 1), count = random.size(1, rows - first);
    matrix<T> some_transposed(count, n), some(count, n), some_added(count, n);
    const auto part = x.view().row_block(first, count);
    reference::multiply_transposed(part, w.view(), some_transposed.view());
    reference::multiply(part, v.view(), some.view());
    reference::accumulate(part, v.view(), some_added.view());
    const std::size_t bytes = count * n * sizeof(T);
    CHECK(std::memcmp(some_transposed.data(), &all_transposed(first, 0), bytes) == 0);
    CHECK(std::memcmp(some.data(), &all(first, 0), bytes) == 0);
    CHECK(std::memcmp(some_added.data(), &added(first, 0), bytes) == 0);
  }
}
