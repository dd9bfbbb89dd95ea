// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// Random values in every tensor of a layer, biases included.
template <class Layer> void randomize(Layer& layer, random_source& random, double scale = 1) {
  layer.visit_parameters([&](const hmoe::parameter_info&, auto view) { fill(random, view, scale); });
}

/// The tensor of a layer, or "x", whose gradient differs most from central differences of Σ dy ⊙ y, and by how much.
/// The step is small, so that the selection stays what it is; pick data without near ties.
template <class Context, class Layer>
std::pair<double, std::string> layer_gradient_error(const Context& ctx, Layer& layer, hmoe::matrix<double> x,
                                                    const hmoe::matrix<double>& dy) {
  hmoe::matrix<double> y(x.rows(), x.cols()), dx(x.rows(), x.cols());
  auto tape = layer.make_tape(x.rows());
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, dy, dx, gradients);
  const auto loss = [&] {
    layer.forward(ctx, x, y);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      sum += y.data()[i] * dy.data()[i];
    return sum;
  };
  const difference_options options{.step = 1e-5, .floor = 1e-2};
  std::pair<double, std::string> worst{gradient_error({x.data(), x.size()}, {dx.data(), dx.size()}, loss, options),
                                       "x"};
  std::vector<hmoe::parameter<double>> list;
  layer.append_parameters(gradients, list);
  for (const auto& parameter : list)
    worst = std::max(worst, {gradient_error(parameter.value, parameter.gradient, loss, options), parameter.name});
  return worst;
}

} // namespace support
