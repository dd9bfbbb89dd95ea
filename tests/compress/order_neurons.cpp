// SPDX-License-Identifier: MIT
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/order_neurons.hpp>

#include "compress/calibrated_layer.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace compress = hmoe::compress;
using hmoe::matrix;
using support::cpu;
using support::d;

TEST_CASE("the order of neurons changes a layer's output by rounding alone") {
  const auto layer = support::make_calibrated_layer();
  const support::calibration_run run(layer);
  const auto importance = compress::magnitude_times_activation(layer, run.sums);
  const auto by_importance = compress::order_by_importance(layer, importance);
  matrix<double> y(12, d), ordered(12, d);
  layer.forward(cpu, run.x[2], y);
  by_importance.layer.forward(cpu, run.x[2], ordered);
  CHECK(support::largest_difference(y.view(), ordered.view()) < 1e-13);
  for (const auto& values : by_importance.importance)
    CHECK(std::is_sorted(values.rbegin(), values.rend()));
}
