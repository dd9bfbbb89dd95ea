// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <vector>

namespace support {

inline double normal_cdf(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

inline double squared_variation(const std::vector<double>& x) {
  const auto n = static_cast<double>(x.size());
  double sum = 0, squares = 0;
  for (const double value : x) {
    sum += value;
    squares += value * value;
  }
  const double mean = sum / n;
  return (squares - n * mean * mean) / (n - 1) / (mean * mean + 1e-10);
}

} // namespace support
