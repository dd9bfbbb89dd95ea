// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/compress/neuron_budget.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/compress/report.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace hmoe::compress {

/// prune_neurons tells, beside the report, how much of the importance went.
template <class Layer> struct pruned : compressed<Layer> {
  double importance = 0;     ///< of all neurons
  double importance_cut = 0; ///< of those that went
  /// Of those that had gone if widths need not be multiples: the difference is what multiples cost.
  double importance_cut_without_multiples = 0;
};

namespace detail {
/// Σ over neurons beyond the first widths[e] of each expert's order of f(expert, neuron).
template <class F>
[[nodiscard]] double sum_of_cut(const neuron_choice& order, const std::vector<std::size_t>& widths, const F& f) {
  double sum = 0;
  for (std::size_t e = 0; e < order.size(); ++e)
    for (std::size_t i = widths[e]; i < order[e].size(); ++i)
      sum += f(e, order[e][i]);
  return sum;
}
} // namespace detail

/// A layer with the neurons that the budget leaves (widths_within), each expert of its own width, possibly 0; they stay
/// in their order. Output biases, router and dispatch stay. The layer computes what a layer with these neurons does
/// that was never larger: to the bit, where the backend promises bits. Predicted is Σ squared_contribution of the
/// neurons cut: right where their contributions are uncorrelated.
template <class Layer>
[[nodiscard]] pruned<Layer> prune_neurons(const Layer& layer, const neuron_values& importance, const calibration& sums,
                                          const neuron_budget& budget) {
  const std::vector<std::size_t> widths = compress::widths_within(layer, importance, sums, budget);
  const neuron_choice order = detail::order_of(importance);
  neuron_choice chosen(order.size());
  for (std::size_t e = 0; e < order.size(); ++e)
    if (!order[e].empty()) {
      chosen[e].assign(order[e].begin(), order[e].begin() + static_cast<std::ptrdiff_t>(widths[e]));
      std::ranges::sort(chosen[e]);
    }
  pruned<Layer> result{detail::with_report(layer, layer.with_experts(compress::take_neurons(layer.experts(), chosen)),
                                           [&](std::size_t e) { return sums.load(e); })};
  const auto value = [&](std::size_t e, std::size_t i) { return importance[e][i]; };
  result.importance = detail::sum_of_cut(order, std::vector<std::size_t>(order.size(), 0), value);
  result.importance_cut = detail::sum_of_cut(order, widths, value);
  neuron_budget fine = budget;
  fine.multiple = 1;
  result.importance_cut_without_multiples =
      detail::sum_of_cut(order, compress::widths_within(layer, importance, sums, fine), value);
  const neuron_values squares = compress::squared_contribution(layer, sums);
  result.report.predicted =
      detail::sum_of_cut(order, widths, [&](std::size_t e, std::size_t i) { return squares[e][i]; });
  return result;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
