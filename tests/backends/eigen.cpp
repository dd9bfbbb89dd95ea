// SPDX-License-Identifier: MIT
#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/reference.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::backends::eigen;
using hmoe::backends::reference;

namespace {

// rows × cols random values inside of a larger matrix, so that the stride differs from cols.
template <class T> struct padded {
  matrix<T> memory;
  matrix_view<T> view;
  padded(support::random_source& random, std::size_t rows, std::size_t cols) {
    const std::size_t left = random.size(0, 3), right = random.size(0, 3);
    memory = support::random_matrix<T>(random, rows + 2, left + cols + right);
    view = memory.view().row_block(1, rows).column_block(left, cols);
  }
};

struct shape {
  std::size_t m, n, k;
};

std::vector<shape> shapes(support::random_source& random) {
  std::vector<shape> result{{0, 3, 4}, {3, 0, 4}, {3, 4, 0}, {0, 0, 0},    {1, 0, 0},   {1, 1, 1},
                            {1, 7, 5}, {7, 1, 5}, {7, 5, 1}, {40, 30, 25}, {64, 48, 96}};
  for (int i = 0; i < 40; ++i)
    result.push_back({random.size(0, 33), random.size(0, 33), random.size(0, 33)});
  return result;
}

} // namespace

TEST_CASE_TEMPLATE("Eigen's products agree with the reference, strided and empty ones too", T, float, double) {
  const double tolerance = std::same_as<T, float> ? 1e-5 : 1e-13;
  support::random_source random(31);
  for (const auto& [m, n, k] : shapes(random)) {
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    const padded<T> x(random, m, k), y(random, k, n), xt(random, k, m), yt(random, n, k);
    const auto check = [&](auto product) {
      padded<T> expected(random, m, n);
      padded<T> actual = expected;
      actual.view = matrix_view<T>(actual.memory.data() + (expected.view.data() - expected.memory.data()), m, n,
                                   expected.view.stride());
      product(reference{}, expected.view);
      product(eigen{}, actual.view);
      // All of the memory: the frame around the output must be as it was. Sums of k values below 1.
      CHECK(support::largest_difference(actual.memory.view(), expected.memory.view()) <=
            tolerance * static_cast<double>(k == 0 ? 1 : k));
    };
    check([&](auto math, matrix_view<T> c) { math.multiply_transposed(x.view, yt.view, c); });
    check([&](auto math, matrix_view<T> c) { math.multiply(x.view, y.view, c); });
    check([&](auto math, matrix_view<T> c) { math.accumulate(x.view, y.view, c); });
    check([&](auto math, matrix_view<T> c) { math.accumulate_transposed(xt.view, y.view, c); });
  }
}

TEST_CASE("the same call gives the same bits") {
  support::random_source random(32);
  const auto a = support::random_matrix<float>(random, 50, 61), b = support::random_matrix<float>(random, 37, 61);
  matrix<float> first(50, 37), second(50, 37);
  eigen::multiply_transposed(a.view(), b.view(), first.view());
  eigen::multiply_transposed(a.view(), b.view(), second.view());
  CHECK(std::memcmp(first.data(), second.data(), first.size() * sizeof(float)) == 0);
}
