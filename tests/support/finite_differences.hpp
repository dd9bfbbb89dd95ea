// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace support {

/// ∂f/∂variable by the five-point central rule, error O(step⁴). f() reads `variable`, which is put back afterwards.
template <class F> [[nodiscard]] double central_difference(double& variable, F&& f, double step = 1e-4) {
  const double middle = variable;
  const auto at = [&](double offset) {
    variable = middle + offset;
    return f();
  };
  const double near = at(step) - at(-step), far = at(2 * step) - at(-2 * step);
  variable = middle;
  return (8 * near - far) / (12 * step);
}

struct difference_options {
  double step = 1e-4;
  double floor = 1e-3; ///< derivatives smaller than this are compared on this scale
};

/// The largest |analytic − numeric| / max(|analytic|, |numeric|, floor) over all values, where numeric is the central
/// difference of the scalar loss() and analytic[i] claims to be ∂loss/∂values[i]. Infinity for unequal sizes and NaN.
template <class Loss>
[[nodiscard]] double gradient_error(std::span<double> values, std::span<const double> analytic, Loss&& loss,
                                    difference_options options = {}) {
  if (values.size() != analytic.size())
    return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double numeric = central_difference(values[i], loss, options.step);
    const double scale = std::max({std::abs(analytic[i]), std::abs(numeric), options.floor});
    const double error = std::abs(analytic[i] - numeric) / scale;
    if (std::isnan(error))
      return std::numeric_limits<double>::infinity();
    worst = std::max(worst, error);
  }
  return worst;
}

} // namespace support
