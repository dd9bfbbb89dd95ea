// SPDX-License-Identifier: MIT
#include "pruning.hpp"

#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/nested.hpp>
#include <hmoe/compress/neuron_budget.hpp>
#include <hmoe/compress/order_neurons.hpp>
#include <hmoe/compress/prune_neurons.hpp>
#include <hmoe/compress/replace_experts.hpp>

#include "moe_feed_forward.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace language_model {
namespace {

namespace compress = hmoe::compress;
using whole_layer = moe_feed_forward<float>;

whole_layer& whole(feed_forward<float>& layer) {
  auto* found = dynamic_cast<whole_layer*>(&layer);
  hmoe::require(found != nullptr, "this layer was pruned already: prune the model that was trained");
  return *found;
}
const whole_layer& whole(const feed_forward<float>& layer) { return whole(const_cast<feed_forward<float>&>(layer)); }

template <class Layer>
std::unique_ptr<feed_forward<float>> of_decoder(Layer layer, std::size_t tokens, std::size_t threads) {
  return std::make_unique<moe_feed_forward<float, typename Layer::experts_type>>(std::move(layer), tokens, threads);
}

/// The least important routed experts, as many as must go so that the others have at most `budget` of the parameters.
std::vector<std::size_t> experts_to_go(const whole_layer::layer_type& layer, std::vector<double> importance,
                                       double budget) {
  const std::size_t routed = layer.router().routed();
  importance.resize(routed);
  std::size_t total = 0;
  for (std::size_t e = 0; e < layer.size(); ++e)
    total += layer.experts().parameter_count(e);
  for (std::size_t count = 0; count < routed; ++count) {
    auto ids = compress::least_important(importance, count);
    std::size_t kept = total;
    for (const std::size_t e : ids)
      kept -= layer.experts().parameter_count(e);
    if (static_cast<double>(kept) <= budget * static_cast<double>(total))
      return ids;
  }
  throw hmoe::error("a budget of " + std::to_string(budget) + " leaves not even one expert of a layer with " +
                    std::to_string(routed));
}

std::unique_ptr<feed_forward<float>> pruned_layer(const whole_layer::layer_type& layer,
                                                  const compress::calibration& sums, cut how, double budget,
                                                  std::size_t tokens, std::size_t threads) {
  switch (how) {
  case cut::nothing:
    break;
  case cut::uniform: {
    const auto by_importance = compress::order_by_importance(layer, compress::heapr(layer, sums));
    std::vector<std::size_t> widths;
    for (const std::size_t h : layer.widths())
      widths.push_back(static_cast<std::size_t>(std::floor(budget * static_cast<double>(h) + 1e-9)));
    return of_decoder(compress::nested(by_importance.layer, widths).cut(), tokens, threads);
  }
  case cut::unequal:
    return of_decoder(compress::prune_neurons(layer, compress::heapr(layer, sums), sums, {.share = budget}).layer,
                      tokens, threads);
  case cut::drop: {
    const auto ids = experts_to_go(layer, compress::reap(sums), budget);
    return of_decoder(compress::drop_experts(layer, sums, ids).layer, tokens, threads);
  }
  case cut::constants:
    if (const auto ids = experts_to_go(layer, compress::change_by_constant(sums), budget); !ids.empty())
      return of_decoder(compress::replace_by_constants(layer, sums, ids).layer, tokens, threads);
    break;
  }
  return of_decoder(layer, tokens, threads);
}

} // namespace

std::string_view name_of(cut how) {
  switch (how) {
  case cut::nothing:
    return "nothing";
  case cut::uniform:
    return "uniform";
  case cut::unequal:
    return "unequal";
  case cut::drop:
    return "drop";
  case cut::constants:
    return "constants";
  }
  return "";
}

std::vector<compress::calibration> calibrate(decoder<float>& model, std::span<const batch> batches) {
  std::vector<compress::calibration> sums;
  const std::size_t blocks = model.shape().blocks;
  for (std::size_t l = 0; l < blocks; ++l)
    sums.emplace_back(whole(model.layer(l)).layer());
  for (std::size_t l = 0; l < blocks; ++l)
    whole(model.layer(l))
        .watch([&own = sums[l]](const auto& layer, auto& tape, const auto& ctx, const matrix<float>& dy) {
          own.add(layer, tape);
          own.add_gradient(ctx, layer, tape, dy);
        });
  for (const batch& b : batches)
    model.accumulate_gradients(b.inputs, b.targets, {}, false);
  for (std::size_t l = 0; l < blocks; ++l)
    whole(model.layer(l)).watch({});
  return sums;
}

decoder<float>::layers pruned_layers(const decoder<float>& model, std::span<const compress::calibration> sums, cut how,
                                     double budget, std::size_t threads) {
  decoder<float>::layers layers;
  for (std::size_t l = 0; l < model.shape().blocks; ++l)
    layers.push_back(pruned_layer(whole(model.layer(l)).layer(), sums[l], how, budget,
                                  model.sequences() * model.shape().context, threads));
  return layers;
}

void copy_all_but_layers(decoder<float>& from, decoder<float>& to) {
  const auto of_layers = [](const auto& p) { return p.name.find(".feed_forward.") != std::string::npos; };
  const auto source = from.parameters();
  for (const auto& p : to.parameters())
    if (!of_layers(p))
      std::ranges::copy(std::ranges::find(source, p.name, &hmoe::parameter<float>::name)->value, p.value.begin());
}

} // namespace language_model
