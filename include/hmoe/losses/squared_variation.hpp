// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::losses::detail {

/// CV² = V / (m² + 1e-10) of n values with the mean m and the unbiased variance V = squares / (n − 1), where squares =
/// Σ (x_i − m)²; 0 for fewer than two values. The small number keeps all-zero input finite.
struct variation {
  double n, mean, squares;

  [[nodiscard]] HMOE_HOST_DEVICE double value() const noexcept { return n < 2 ? 0 : variance() / square(); }
  /// ∂CV²/∂x_i
  [[nodiscard]] HMOE_HOST_DEVICE double slope(double x) const noexcept {
    return n < 2 ? 0 : 2 * (x - mean) / (n - 1) / square() - variance() * 2 * mean / n / (square() * square());
  }

private:
  [[nodiscard]] HMOE_HOST_DEVICE double variance() const noexcept { return squares / (n - 1); }
  [[nodiscard]] HMOE_HOST_DEVICE double square() const noexcept { return mean * mean + 1e-10; }
};

/// CV² of the x_i for which counts(i) is true; writes ∂CV²/∂x_i to slopes, 0 for the others.
template <class Counts>
double squared_variation(vector_view<const double> x, vector_view<double> slopes, const Counts& counts) {
  variation of{0, 0, 0};
  for (std::size_t i = 0; i < x.size(); ++i)
    of.n += counts(i) ? 1 : 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (counts(i))
      of.mean += x[i];
  if (of.n != 0)
    of.mean /= of.n;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (counts(i))
      of.squares += (x[i] - of.mean) * (x[i] - of.mean);
  for (std::size_t i = 0; i < x.size(); ++i)
    slopes[i] = counts(i) ? of.slope(x[i]) : 0;
  return of.value();
}
/// CV² of all x_i.
inline double squared_variation(vector_view<const double> x, vector_view<double> slopes) {
  return squared_variation(x, slopes, [](std::size_t) { return true; });
}

} // namespace hmoe::losses::detail

#include <hmoe/core/macros_on.hpp>
