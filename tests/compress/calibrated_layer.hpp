// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/compress/calibration.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/routing/router.hpp>

#include "layer/small_layer.hpp"

#include <cstddef>
#include <utility>
#include <vector>

namespace support {

/// Five experts of two kinds, widths 3 to 6, with ids that are not in the order of the banks, and tokens for them.
using calibrated_experts = hmoe::expert_set<glu, mlp>;
using calibrated_router = hmoe::routing::top_k_router<double>;
using calibrated_layer = hmoe::moe_layer<calibrated_experts, calibrated_router>;

[[nodiscard]] inline calibrated_layer make_calibrated_layer(std::uint64_t seed = 3) {
  calibrated_layer layer{hmoe::expert_set{hmoe::expert_ids{{{0, 2, 3}, {1, 4}}},
                                          glu(d, {5, 3, 6}, hmoe::experts::biases::all), mlp(d, {4, 6})},
                         calibrated_router(d, 5, 2)};
  randomize(layer, seed);
  return layer;
}

/// Three batches of different sizes through a layer.
template <class Layer> struct calibration_run {
  std::vector<hmoe::matrix<double>> x, dy;
  std::vector<hmoe::tape<double>> tapes;
  hmoe::compress::calibration sums;

  explicit calibration_run(const Layer& layer, std::uint64_t seed = 4) : sums(layer) {
    random_source random(seed);
    for (const std::size_t tokens : {7U, 0U, 12U}) {
      x.push_back(random_matrix<double>(random, tokens, d));
      dy.push_back(random_matrix<double>(random, tokens, d));
      hmoe::matrix<double> y(tokens, d);
      hmoe::tape<double>& tape = tapes.emplace_back(layer.make_tape(tokens));
      layer.forward(cpu, x.back(), y, tape);
      sums.add(layer, tape);
      sums.add_gradient(cpu, layer, tape, dy.back());
    }
  }
};

} // namespace support
