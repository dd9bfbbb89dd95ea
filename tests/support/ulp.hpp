// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace support {

/// How far `got` is from the exact value, in units of the last place that a T of that size has. NaN: infinitely far.
template <class T> [[nodiscard]] double ulp_error(T got, long double exact) {
  int exponent = 0;
  std::frexp(exact, &exponent);
  const int last = std::max(exponent, std::numeric_limits<T>::min_exponent) - std::numeric_limits<T>::digits;
  const double error = static_cast<double>(std::abs(static_cast<long double>(got) - exact) / std::ldexp(1.0L, last));
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

} // namespace support
