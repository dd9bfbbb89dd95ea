// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <utility>
#include <vector>

namespace support {

inline constexpr std::size_t d = 5;
using glu = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
using mlp = hmoe::experts::mlp_bank<double, hmoe::experts::gelu>;

/// Random weights and biases in every tensor, large enough in the router to have opinions.
template <class Layer> void randomize(Layer& layer, std::uint64_t seed) {
  random_source random(seed);
  layer.visit_parameters(
      [&](const hmoe::parameter_info& info, auto view) { fill(random, view, info.expert == info.no_expert ? 2 : 1); });
}

/// Five experts of two kinds and widths 1 to 4.
template <class Router, class Dispatch = hmoe::dispatch::dense>
auto small_layer(Router router, std::uint64_t seed = 1, Dispatch dispatch = {}) {
  hmoe::moe_layer layer{hmoe::expert_set{glu(d, {1, 4, 2}, hmoe::experts::biases::all), mlp(d, {3, 1})},
                        std::move(router), dispatch};
  randomize(layer, seed);
  return layer;
}

inline const hmoe::context cpu{hmoe::backends::reference{}};

/// One training step's worth of numbers.
template <class Layer> struct step {
  using T = typename Layer::value_type;
  hmoe::matrix<T> y, dx;
  hmoe::tape<T> tape;
  typename Layer::gradients_type gradients;

  step(const Layer& layer, const hmoe::matrix<T>& x, const hmoe::matrix<T>& dy)
      : y(x.rows(), x.cols()), dx(x.rows(), x.cols()), tape(layer.make_tape(x.rows())),
        gradients(layer.make_gradients()) {
    layer.forward(cpu, x, y, tape);
    layer.backward(cpu, tape, dy, dx, gradients);
  }
  [[nodiscard]] std::vector<T> all_gradients() {
    std::vector<T> all;
    gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<T> view) {
      all.insert(all.end(), view.data(), view.data() + view.size());
    });
    return all;
  }
};
template <class Layer, class X> step(const Layer&, const X&, const X&) -> step<Layer>;

} // namespace support
