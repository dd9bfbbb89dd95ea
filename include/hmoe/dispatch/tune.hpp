// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/automatic.hpp>
#include <hmoe/dispatch/measure_machine.hpp>
#include <hmoe/dispatch/tuned_table.hpp>
#include <hmoe/execution/context.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

struct tune_options {
  std::vector<std::size_t> tokens{1, 2, 4, 8, 16, 64, 256, 1024}; ///< ascending
  double seconds = 0.2; ///< for each number of tokens and kind of pass; two rounds are measured in any case
  bool training = true; ///< also forward and backward passes, where the layer has parameters to train
  std::string cpu{};    ///< what the table says it was measured on: io::cpu_name()
};

/// Runs every strategy that `automatic` may take on random tokens, which the layer's own router assigns, and returns
/// the quickest for each number of tokens. They take turns, and the shortest time of each counts; another one than
/// `scattered` has to be 1 % quicker. Without training, batches that train get the choice of inference.
/// hmoe::error for options that are out of order. Changes nothing in the layer; takes a copy of it for gradients.
template <class Layer, execution_context Context>
[[nodiscard]] tuned_table tune(const Layer& layer, const Context& ctx, const tune_options& options = {}) {
  using T = typename Layer::value_type;
  constexpr std::array candidates{strategy::scattered, strategy::per_token, strategy::sorted, strategy::blocked,
                                  strategy::looped};
  tuned_table result{options.cpu, shape_of(ctx, layer.experts()), {}};
  for (const std::size_t tokens : options.tokens)
    result.choices.push_back({tokens, strategy::scattered, strategy::scattered});
  result.validate();

  std::vector<std::pair<strategy, automatic>> policies;
  for (const strategy s : candidates)
    policies.emplace_back(s, automatic{tuned_table{"", result.shape, {{1, s, s}}}});
  const auto quickest_of = [&](const auto& pass) {
    std::array<double, candidates.size()> least;
    least.fill(std::numeric_limits<double>::infinity());
    double spent = 0;
    for (int round = 0; round < 2 || (spent < options.seconds && round < 1000); ++round)
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        const double time = detail::shortest_run(0, [&] { pass(policies[i].second); });
        least[i] = std::min(least[i], time);
        spent += 2 * time;
      }
    std::size_t best = 0;
    for (std::size_t i = 1; i < candidates.size(); ++i)
      if (least[i] < least[best] * (best == 0 ? 0.99 : 1.0))
        best = i;
    return candidates[best];
  };

  for (tuned_table::choice& choice : result.choices) {
    matrix<T> x(choice.tokens, layer.d_model()), y(choice.tokens, layer.d_model());
    fill_normal(vector_view<T>(x.data(), x.size()), 1.0, seed{7}, choice.tokens);
    const auto forward = [&](const automatic& by, tape<T>& tape) {
      tape.trace().resize(x.rows(), layer.router().routed(), layer.router().saved_per_token(), tape.recording());
      tape.set_weights_on_input(layer.router().weights_on_input());
      layer.router().forward(ctx, std::as_const(x).view(), tape.trace(), tape.assignment());
      by.forward(ctx, layer.experts(), std::as_const(x).view(), y.view(), tape);
    };
    choice.inference = quickest_of([&](const automatic& by) {
      const typename Context::workspace_scope scope(ctx.workspace());
      tape<T> tape(&ctx.workspace(), false);
      forward(by, tape);
    });
    choice.training = choice.inference;
    if constexpr (Layer::trainable) {
      if (!options.training)
        continue;
      auto gradients = layer.make_gradients();
      auto tape = layer.make_tape(choice.tokens);
      matrix<T> dx(choice.tokens, layer.d_model());
      tape.input() = x;
      choice.training = quickest_of([&](const automatic& by) {
        const typename Context::workspace_scope scope(ctx.workspace());
        forward(by, tape);
        buffer<T> d_weights(tape.assignment().size(), &ctx.workspace());
        by.backward(ctx, layer.experts(), tape, std::as_const(y).view(), dx.view(), d_weights.view(),
                    gradients.experts);
      });
    }
  }
  return result;
}

} // namespace hmoe::dispatch
