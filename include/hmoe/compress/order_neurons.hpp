// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/neuron_budget.hpp>
#include <hmoe/compress/neurons.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>

namespace hmoe::compress {

/// A layer whose neurons stand in descending order of importance, and that importance, in the same order.
template <class Layer> struct ordered {
  Layer layer;
  neuron_values importance;
};

/// Permutes the neurons of each expert: the most important ones come first, ties in their old order. The layer's output
/// stays but for rounding, since sums over neurons run in another order.
template <class Layer>
[[nodiscard]] ordered<Layer> order_by_importance(const Layer& layer, const neuron_values& importance) {
  detail::check_importance(layer, importance);
  const neuron_choice order = detail::order_of(importance);
  ordered<Layer> result{layer.with_experts(compress::take_neurons(layer.experts(), order)), importance};
  for (std::vector<double>& values : result.importance)
    std::ranges::sort(values, std::greater{});
  return result;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
