// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/activation.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace hmoe::testing {

/// What an activation promises.
struct activation_options {
  double largest = 1e4;    ///< |z| up to which values and derivatives are finite
  double tolerance = 1e-5; ///< of float against double, relative to the larger of 1 and the value
};

/// Checks an activation in its bend, in its tails and far out, though not at 0, where it may have a kink: values and
/// derivatives are finite, the derivative is that of the value, float and double agree, and the same argument gives
/// the same bits every time.
template <activation A> [[nodiscard]] report check_activation(const activation_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    std::vector<double> points;
    for (int i = 0; i < 400; ++i)
      points.push_back(-9.975 + 0.05 * i);
    for (double z = 12; z <= options.largest; z *= 2)
      points.insert(points.end(), {z, -z});
    for (const double z : {1e-6, 1e-3, options.largest})
      points.insert(points.end(), {z, -z});

    for (const double z : points) {
      const double value = A::value(z), slope = A::derivative(z);
      if (!found.expect(std::isfinite(value) && std::isfinite(slope), "values and derivatives are finite", "at ", z,
                        " the value is ", value, " and the derivative ", slope))
        continue;
      const double step = std::min(1e-5 * std::max(1.0, std::abs(z)), std::abs(z) / 4);
      const double numeric = (A::value(z + step) - A::value(z - step)) / ((z + step) - (z - step));
      found.expect(std::abs(slope - numeric) <= 1e-6 * std::max(1.0, std::abs(numeric)), "derivative is that of value",
                   "at ", z, ": got ", slope, ", finite differences give ", numeric);
      const auto narrow = static_cast<float>(z);
      const auto same = static_cast<double>(narrow);
      const auto agree = [&](const char* what, float a, double b) {
        found.expect(std::abs(static_cast<double>(a) - b) <= options.tolerance * std::max(1.0, std::abs(b)),
                     "float and double agree", "the ", what, " at ", same, " is ", a, " in float and ", b,
                     " in double");
      };
      agree("value", A::value(narrow), A::value(same));
      agree("derivative", A::derivative(narrow), A::derivative(same));
    }
    for (const float z : {0.0F, -0.0F})
      found.expect(std::isfinite(A::value(z)) && std::isfinite(A::derivative(z)), "values and derivatives are finite",
                   "not at ", z);
    found.expect(repeatable([&] {
                   std::vector<double> all;
                   for (const double z : points)
                     all.insert(all.end(), {A::value(z), A::derivative(z)});
                   return all;
                 }),
                 "gives the same bits every time", "another call, or one on another thread, gave others");
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
