// SPDX-License-Identifier: MIT
#include <hmoe/compress/report.hpp>

#include "compress/calibrated_layer.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace compress = hmoe::compress;
using hmoe::matrix;
using hmoe::matrix_view;

namespace {
/// y = factor · router_x where there is one, else of x.
struct scaling {
  using value_type = double;
  double factor;
  template <class Context>
  void forward(const Context&, matrix_view<const double> tokens, matrix_view<double> y,
               const hmoe::routing_inputs<double>& inputs) const {
    const matrix_view<const double> x = inputs.router_x.rows() != 0 ? inputs.router_x : tokens;
    for (std::size_t t = 0; t < x.rows(); ++t)
      for (std::size_t i = 0; i < x.cols(); ++i)
        y(t, i) = factor * x(t, i);
  }
};
} // namespace

TEST_CASE("the change of an output: means over tokens, the largest value, and no division by an output of 0") {
  matrix<double> x(2, 2);
  x(0, 0) = -4;
  x(1, 1) = 3;
  const auto change = compress::measure_change(support::cpu, scaling{2}, scaling{1.5}, x);
  CHECK(change.output_squared == (36 + 64) / 2);
  CHECK(change.squared == (1.5 * 1.5 + 2 * 2) / 2);
  CHECK(change.largest == 2);
  CHECK(change.relative() == doctest::Approx(0.25));
  CHECK(compress::measure_change(support::cpu, scaling{0}, scaling{0}, x).relative() == 0);
  CHECK(compress::measure_change(support::cpu, scaling{0}, scaling{1}, x).relative() ==
        std::numeric_limits<double>::infinity());
  CHECK(compress::measure_change(support::cpu, scaling{1}, scaling{2}, matrix<double>(0, 2)).squared == 0);
  matrix<double> router_x(2, 2);
  router_x(0, 0) = 4;
  CHECK(compress::measure_change(support::cpu, scaling{2}, scaling{1}, x, {.router_x = router_x}).squared == 8);
}
