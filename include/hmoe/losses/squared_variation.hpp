// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::losses::detail {

/// CV² = V / (m² + 1e-10) with the mean m and the unbiased variance V = Σ (x_i − m)² / (N − 1); 0 for fewer than two
/// values. The small number keeps all-zero input finite. Writes ∂CV²/∂x_i to slopes.
inline double squared_variation(vector_view<const double> x, vector_view<double> slopes) {
  const auto n = static_cast<double>(x.size());
  double mean = 0, variance = 0;
  for (const double value : x)
    mean += value / n;
  for (const double value : x)
    variance += (value - mean) * (value - mean);
  for (double& slope : slopes)
    slope = 0;
  if (x.size() < 2)
    return 0;
  variance /= n - 1;
  const double square = mean * mean + 1e-10;
  for (std::size_t i = 0; i < x.size(); ++i)
    slopes[i] = 2 * (x[i] - mean) / (n - 1) / square - variance * 2 * mean / n / (square * square);
  return variance / square;
}

} // namespace hmoe::losses::detail
