// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/gating.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// What the gate of a GLU promises.
struct gate_options {
  double scale = 4;        ///< of the random gate and up values
  double largest = 1e4;    ///< up to which both may grow without a result that is not finite
  double tolerance = 1e-5; ///< of float against double, relative to the larger of 1 and the value
  std::size_t points = 300;
};

/// Checks the gate of a GLU at random points and far out: everything is finite, backward writes (does not add) the
/// derivatives of value, in proportion to da; float and double agree; the same arguments give the same bits every time;
/// and validate(), where there is one, accepts it.
template <gating Gate> [[nodiscard]] report check_gate(const Gate& gate, const gate_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    if constexpr (requires { gate.validate(); })
      gate.validate();
    const std::vector<double> values = random_values<double>(2 * options.points, 71, options.scale);
    std::vector<std::pair<double, double>> points;
    for (std::size_t i = 0; i < options.points; ++i)
      points.emplace_back(values[2 * i], values[2 * i + 1]);

    const auto slopes = [&]<class T>(T g, T u, T da, T before) {
      std::pair<T, T> d{before, before};
      gate.backward(g, u, da, d.first, d.second);
      return d;
    };
    for (const auto& [g, u] : points) {
      const double value = gate.value(g, u), da = 0.75;
      const auto [dg, du] = slopes(g, u, da, std::numeric_limits<double>::quiet_NaN());
      if (!found.expect(std::isfinite(value) && std::isfinite(dg) && std::isfinite(du),
                        "writes finite values and derivatives", "at gate ", g, " and up ", u, " the value is ", value,
                        ", dg ", dg, " and du ", du, "; dg and du were NaN before"))
        continue;
      const auto over = slopes(g, u, da, 100.0);
      found.expect(over.first == dg && over.second == du, "backward writes dg and du and adds to neither", "at gate ",
                   g, " and up ", u, " what was there before changes the result");
      const auto twice = slopes(g, u, 2 * da, 0.0), none = slopes(g, u, 0.0, 1.0);
      found.expect(twice.first == 2 * dg && twice.second == 2 * du && none.first == 0 && none.second == 0,
                   "dg and du are in proportion to da", "not at gate ", g, " and up ", u);
      const auto compare = [&](const char* what, double got, double above, double below, double step) {
        const double expected = da * (above - below) / (2 * step);
        found.expect(std::abs(got - expected) <= 1e-6 * std::max(1.0, std::abs(expected)),
                     "backward is the derivative of value", what, " at gate ", g, " and up ", u, ": got ", got,
                     ", finite differences give ", expected);
      };
      const double step = 1e-5;
      compare("dg", dg, gate.value(g + step, u), gate.value(g - step, u), step);
      compare("du", du, gate.value(g, u + step), gate.value(g, u - step), step);

      const auto narrow_g = static_cast<float>(g), narrow_u = static_cast<float>(u);
      const auto wide_g = static_cast<double>(narrow_g), wide_u = static_cast<double>(narrow_u);
      const auto narrow = slopes(narrow_g, narrow_u, 0.75F, 0.0F);
      const auto wide = slopes(wide_g, wide_u, da, 0.0);
      const auto agree = [&](const char* what, float a, double b) {
        found.expect(std::abs(static_cast<double>(a) - b) <= options.tolerance * std::max(1.0, std::abs(b)),
                     "float and double agree", what, " at gate ", wide_g, " and up ", wide_u, " is ", a,
                     " in float and ", b, " in double");
      };
      agree("the value", gate.value(narrow_g, narrow_u), gate.value(wide_g, wide_u));
      agree("dg", narrow.first, wide.first);
      agree("du", narrow.second, wide.second);
    }
    for (const double g : {-options.largest, 0.0, options.largest})
      for (const double u : {-options.largest, 0.0, options.largest}) {
        const auto a = slopes(static_cast<float>(g), static_cast<float>(u), 1.0F, 0.0F);
        found.expect(std::isfinite(gate.value(static_cast<float>(g), static_cast<float>(u))) &&
                         std::isfinite(a.first) && std::isfinite(a.second),
                     "writes finite values and derivatives", "not at gate ", g, " and up ", u, " in float");
      }
    found.expect(repeatable([&] {
                   std::vector<double> all;
                   for (const auto& [g, u] : points) {
                     const auto d = slopes(g, u, 0.5, 0.0);
                     all.insert(all.end(), {gate.value(g, u), d.first, d.second});
                   }
                   return all;
                 }),
                 "gives the same bits every time", "another call, or one on another thread, gave others");
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
