// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace support {

/// Test data from a source that has nothing to do with hmoe's own generator; the same numbers on every machine.
class random_source {
public:
  explicit random_source(std::uint64_t seed) : engine_(seed) {}

  /// Uniform in [low, high).
  double real(double low = -1, double high = 1) {
    return low + (high - low) * (static_cast<double>(engine_() >> 11U) * 0x1p-53);
  }
  /// Uniform in low … high, both included.
  std::size_t size(std::size_t low, std::size_t high) { return low + engine_() % (high - low + 1); }
  std::uint64_t bits() { return engine_(); }

private:
  std::mt19937_64 engine_;
};

/// Fills a view with values in [−scale, scale).
template <class T> void fill(random_source& random, hmoe::matrix_view<T> view, double scale = 1) {
  for (std::size_t r = 0; r < view.rows(); ++r)
    for (T& value : view.row(r))
      value = static_cast<T>(random.real(-scale, scale));
}

template <class T>
[[nodiscard]] hmoe::matrix<T> random_matrix(random_source& random, std::size_t rows, std::size_t cols,
                                            double scale = 1) {
  hmoe::matrix<T> result(rows, cols);
  fill(random, result.view(), scale);
  return result;
}

/// max |a − b|; infinity when the shapes differ or a value is NaN.
template <class A, class B> [[nodiscard]] double largest_difference(hmoe::matrix_view<A> a, hmoe::matrix_view<B> b) {
  if (a.rows() != b.rows() || a.cols() != b.cols())
    return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (std::size_t r = 0; r < a.rows(); ++r)
    for (std::size_t c = 0; c < a.cols(); ++c) {
      const double difference = std::abs(static_cast<double>(a(r, c)) - static_cast<double>(b(r, c)));
      if (std::isnan(difference))
        return std::numeric_limits<double>::infinity();
      largest = std::max(largest, difference);
    }
  return largest;
}

} // namespace support
