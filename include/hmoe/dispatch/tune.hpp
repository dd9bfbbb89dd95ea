// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/automatic.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/strategy.hpp>
#include <hmoe/dispatch/tuned_table.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

struct tune_options {
  std::vector<std::size_t> tokens{1, 2, 4, 8, 16, 64, 256, 1024}; ///< ascending
  /// Loads beside the one that the layer's own router makes of random tokens: shares of experts in proportion to
  /// rank^-s for each of these s (Zipf's law).
  std::vector<double> skews{1.5};
  double seconds = 0.2; ///< for each batch and kind of pass; two rounds are measured in any case
  bool training = true; ///< also forward and backward passes, where the layer has parameters to train
  std::string cpu{};    ///< what the table says it was measured on: io::cpu_name()
};

/// The quickest of the strategies that `automatic` may take. time(automatic): seconds of a pass with it. They take
/// turns, and the shortest time of each counts; another one than `sorted` has to be 1 % quicker. One whose first pass
/// takes more than four times the quickest one's does not run again.
template <class Time>
[[nodiscard]] strategy quickest_measured(const tuned_shape& shape, double seconds, const Time& time) {
  struct candidate {
    strategy which;
    automatic policy;
    double least = std::numeric_limits<double>::infinity();
  };
  std::vector<candidate> all;
  for (const strategy s :
       {strategy::sorted, strategy::scattered, strategy::per_token, strategy::blocked, strategy::looped})
    all.push_back({s, automatic{tuned_table{"", shape, {{1, 1, s, s}}}}});
  const auto quicker = [](const candidate& a, const candidate& b) { return a.least < b.least; };
  double spent = 0;
  for (int round = 0; round < 3 || (spent < seconds && round < 1000); ++round) {
    std::rotate(all.begin(), all.begin() + 1, all.end()); // so that none always comes behind the same one
    for (candidate& c : all) {
      const double passed = time(std::as_const(c.policy));
      c.least = std::min(c.least, passed);
      spent += passed;
    }
    const double quickest = std::min_element(all.begin(), all.end(), quicker)->least;
    std::erase_if(all, [&](const candidate& c) { return c.least > 4 * quickest; });
  }
  const candidate& best = *std::min_element(all.begin(), all.end(), quicker);
  const auto whole =
      std::find_if(all.begin(), all.end(), [](const candidate& c) { return c.which == strategy::sorted; });
  return whole != all.end() && whole->least < 1.01 * best.least ? strategy::sorted : best.which;
}

namespace detail {
template <class F> [[nodiscard]] double seconds_of(const F& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Gives the entries of a batch other experts, as many to each token as before, with shares in proportion to
/// rank^-skew. Experts from `routed` on are shared ones, and keep their tokens.
template <class T> void spread_by_zipf(assignment<T>& batch, std::size_t routed, double skew) {
  std::vector<std::pair<double, index_t>> keys(
      routed); // the largest of log share + Gumbel noise are a draw without return
  std::vector<double> log_shares(routed);
  for (std::size_t e = 0; e < routed; ++e)
    keys[e] = {uniform(seed{11}, 0, e), static_cast<index_t>(e)};
  std::sort(keys.begin(), keys.end());
  for (std::size_t rank = 0; rank < routed; ++rank)
    log_shares[keys[rank].second] = -skew * std::log(static_cast<double>(rank + 1));
  for (std::size_t t = 0; t < batch.tokens(); ++t) {
    const auto own = batch.experts().subview(batch.offsets()[t], batch.offsets()[t + 1] - batch.offsets()[t]);
    const auto shared = std::find_if(own.begin(), own.end(), [&](index_t e) { return e >= routed; });
    const auto count = shared - own.begin();
    for (std::size_t e = 0; e < routed; ++e)
      keys[e] = {log_shares[e] - std::log(-std::log(uniform(seed{12}, t, e))), static_cast<index_t>(e)};
    std::partial_sort(keys.begin(), keys.begin() + count, keys.end(), std::greater<>{});
    std::transform(keys.begin(), keys.begin() + count, own.begin(), [](const auto& key) { return key.second; });
    std::sort(own.begin(), shared);
  }
}
} // namespace detail

/// Runs every strategy that `automatic` may take on random tokens, with the load that the layer's own router makes of
/// them and with skewed ones, and returns the quickest for each (quickest_measured). Without training, batches that
/// train get the choice of inference. hmoe::error for options that are out of order. Changes nothing in the layer;
/// takes a copy of it for gradients.
template <class Layer, execution_context Context>
[[nodiscard]] tuned_table tune(const Layer& layer, const Context& ctx, const tune_options& options = {}) {
  using T = typename Layer::value_type;
  tuned_table result{options.cpu, shape_of(ctx, layer.experts()), {}};
  for (const std::size_t tokens : options.tokens)
    result.choices.push_back({tokens, 1, strategy::sorted, strategy::sorted});
  result.validate();
  for (const double skew : options.skews)
    require(skew > 0 && skew <= 100, "a load of the skew ", skew, " is asked for: give numbers from above 0 to 100");
  result.choices.clear();

  for (const std::size_t tokens : options.tokens) {
    matrix<T> x(tokens, layer.d_model()), y(tokens, layer.d_model());
    fill_normal(vector_view<T>(x.data(), x.size()), 1.0, seed{7}, tokens);
    std::vector<tuned_table::choice> choices; // of these tokens
    const auto measure = [&](double skew) {
      assignment<T> drawn;
      {
        const typename Context::workspace_scope scope(ctx.workspace());
        tape<T> routed;
        routed.trace().resize(tokens, layer.router().routed(), layer.router().saved_per_token(), true);
        layer.router().forward(ctx, std::as_const(x).view(), routed.trace(), drawn);
      }
      if (skew != 0)
        detail::spread_by_zipf(drawn, layer.router().routed(), skew);
      std::vector<expert_work> work(layer.experts().size());
      const double spread = effective_experts(
          load_of(ctx, layer.experts(), drawn, false, vector_view<expert_work>(work.data(), work.size())));
      if (spread == 0 || std::any_of(choices.begin(), choices.end(), [&](const tuned_table::choice& c) {
            return std::abs(c.effective_experts / spread - 1) < 0.1;
          }))
        return; // no expert runs, or a load like this one is known
      const auto forward = [&](const automatic& by, tape<T>& tape) {
        tape.set_weights_on_input(layer.router().weights_on_input());
        tape.assignment() = drawn;
        by.forward(ctx, layer.experts(), std::as_const(x).view(), y.view(), tape);
      };
      const strategy inference = quickest_measured(result.shape, options.seconds, [&](const automatic& by) {
        const typename Context::workspace_scope scope(ctx.workspace());
        return detail::seconds_of([&] {
          tape<T> tape(&ctx.workspace(), false);
          forward(by, tape);
        });
      });
      strategy training = inference;
      if constexpr (Layer::trainable) {
        if (options.training) {
          auto gradients = layer.make_gradients();
          auto tape = layer.make_tape(tokens);
          matrix<T> dx(tokens, layer.d_model());
          tape.input() = x;
          training = quickest_measured(result.shape, options.seconds, [&](const automatic& by) {
            const typename Context::workspace_scope scope(ctx.workspace());
            return detail::seconds_of([&] {
              forward(by, tape);
              buffer<T> d_weights(drawn.size(), &ctx.workspace());
              by.backward(ctx, layer.experts(), tape, std::as_const(y).view(), dx.view(), d_weights.view(),
                          gradients.experts);
            });
          });
        }
      }
      choices.push_back({tokens, spread, inference, training});
    };
    measure(0);
    for (const double skew : options.skews)
      measure(skew);
    std::sort(choices.begin(), choices.end(),
              [](const auto& a, const auto& b) { return a.effective_experts < b.effective_experts; });
    result.choices.insert(result.choices.end(), choices.begin(), choices.end());
  }
  return result;
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
