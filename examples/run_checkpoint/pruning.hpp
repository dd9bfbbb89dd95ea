// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/prune_neurons.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/io/stored_experts.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>

#include "open_layer.hpp"

#include <algorithm>
#include <cstddef>
#include <iostream>
#include <utility>
#include <vector>

namespace run_checkpoint {

using router_type = hmoe::routing::any_router<float, context_type>;

/// GLU experts as floats.
template <class Gate>
hmoe::experts::glu_bank<float, Gate> loaded(const hmoe::io::stored_experts<2>& source, const Gate& gate) {
  std::vector<std::size_t> widths(source.size());
  for (std::size_t e = 0; e < widths.size(); ++e)
    widths[e] = source.width(e);
  using hmoe::experts::biases;
  hmoe::experts::glu_bank<float, Gate> bank(source.d_model(), widths, source.has_biases() ? biases::all : biases::none,
                                            gate);
  auto& weights = bank.weights();
  for (std::size_t e = 0; e < widths.size(); ++e)
    for (std::size_t m = 0; m < 3; ++m) {
      source.read(e, m, 0, m < 2 ? weights.lane(e, m) : weights.output(e));
      if (source.has_biases()) {
        const hmoe::matrix_view<float> bias = m < 2 ? weights.lane_bias(e, m) : weights.output_bias(e);
        source.read_bias(e, m, 0, {bias.data(), bias.cols(), 1});
      }
    }
  return bank;
}

/// The experts of a layer with the neurons that matter most to a batch of random tokens (compress/), as floats.
template <class Gate>
hmoe::experts::glu_bank<float, Gate> pruned(const hmoe::io::stored_experts<2>& source, const Gate& gate,
                                            const router_type& router, const options& chosen) {
  using namespace hmoe;
  moe_layer layer{expert_set{loaded(source, gate)}, router, dispatch::sorted<>{}};
  const context_type ctx{backends::simd{}, executors::openmp{chosen.threads}};
  matrix<float> x(std::max<std::size_t>(chosen.tokens, 256), layer.d_model()), y(x.rows(), x.cols());
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  layer.forward(ctx, x, y, tape);
  compress::calibration sums{layer};
  sums.add(layer, tape);
  auto result = compress::prune_neurons(layer, compress::magnitude_times_activation(layer, sums), sums,
                                        {.share = static_cast<double>(chosen.prune) / 100});
  const auto& change = result.measure(ctx, layer, x);
  std::cout << "pruned from " << static_cast<double>(result.report.parameters_before) / 1e6 << " to "
            << static_cast<double>(result.report.parameters) / 1e6
            << " million parameters; relative change of the output on random tokens " << change.relative() << "\n";
  return std::move(result.layer.experts().template bank<0>());
}

} // namespace run_checkpoint
