// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace hmoe::compress {

/// What neurons cost: their weights and biases, or the FLOPs of a token: 2 (lanes + 1) d for each row of the expert,
/// times the expert's rows per token of the calibration.
enum class cost { parameters, flops };

/// How many neurons may stay.
struct neuron_budget {
  double share = 1; ///< of the cost of all neurons of the layer, in [0, 1]
  compress::cost counted = cost::parameters;
  std::size_t multiple = 1;    ///< widths become multiples of it, such as simd's hidden_per_panel
  std::size_t least_width = 0; ///< every expert keeps as many neurons, if it has them, whatever they cost
};

namespace detail {
/// The neurons of each expert in descending order of importance, ties in ascending order of index.
[[nodiscard]] inline neuron_choice order_of(const neuron_values& importance) {
  neuron_choice order;
  for (std::size_t e = 0; e < importance.size(); ++e) {
    const std::vector<double>& values = importance[e];
    for (std::size_t i = 0; i < values.size(); ++i)
      require(std::isfinite(values[i]), "the importance of neuron ", i, " of expert ", e, " is ", values[i]);
    std::vector<std::size_t>& own = order.emplace_back(values.size());
    std::iota(own.begin(), own.end(), std::size_t{0});
    std::sort(own.begin(), own.end(),
              [&](std::size_t a, std::size_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  }
  return order;
}

/// [N] the cost of a neuron of each expert; 0 for experts without neurons.
template <class Layer>
[[nodiscard]] std::vector<double> neuron_costs(const Layer& layer, const calibration& sums, cost counted) {
  std::vector<double> costs(layer.size());
  layer.experts().for_each_bank([&]<class Bank>(const Bank& bank, vector_view<const std::size_t> ids) {
    if constexpr (neuron_bank<Bank>) {
      constexpr std::size_t lanes = decltype(detail::lanes_of(bank.weights()))::value;
      const std::size_t weights = (lanes + 1) * bank.d_model(), biases = bank.weights().has_biases() ? lanes : 0;
      for (const std::size_t e : ids)
        costs[e] = counted == cost::parameters ? static_cast<double>(weights + biases)
                                               : 2 * static_cast<double>(weights) * sums.load(e);
    }
  });
  return costs;
}
template <class Layer> void check_importance(const Layer& layer, const neuron_values& importance) {
  require(importance.size() == layer.size(), "importance is of ", importance.size(), " experts, the layer has ",
          layer.size());
  layer.experts().for_each_bank([&]<class Bank>(const Bank& bank, vector_view<const std::size_t> ids) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::size_t neurons = neuron_bank<Bank> ? std::size_t{bank.width(i)} : 0;
      require(importance[ids[i]].size() == neurons, "importance is of ", importance[ids[i]].size(),
              " neurons of expert ", ids[i], ", which has ", neurons);
    }
  });
}
} // namespace detail

/// [N] how many neurons of each expert a budget leaves; the most important ones stay (order_by_importance has the
/// order). The neurons of all experts are ranked together, by importance per cost; where widths are multiples, by the
/// mean of the neurons that stay or go together. They stay from the top until the next one does not fit: a smaller
/// budget keeps a part of what a larger one keeps. Ties go to the lower expert id. Neurons that cost nothing (FLOPs of
/// an expert without a row) stay. Widths that are not neurons' (low_rank_bank) stay as they are. hmoe::error for
/// importance that is not finite or not of this layer, and a share outside [0, 1].
template <class Layer>
[[nodiscard]] std::vector<std::size_t> widths_within(const Layer& layer, const neuron_values& importance,
                                                     const calibration& sums, const neuron_budget& budget) {
  require(budget.share >= 0 && budget.share <= 1, "a budget keeps a share of ", budget.share,
          " of the neurons, possible are 0 to 1");
  require(budget.multiple >= 1, "widths shall be multiples of ", budget.multiple, ", possible are 1 or more");
  require(sums.size() == layer.size(), "the calibration is of a layer with ", sums.size(), " experts, this one has ",
          layer.size());
  detail::check_importance(layer, importance);
  const neuron_choice order = detail::order_of(importance);
  const std::vector<double> costs = detail::neuron_costs(layer, sums, budget.counted);
  struct block {
    std::size_t id, width; ///< of the expert; its width when the block stays
    double cost, rank;
  };
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::vector<block> blocks;
  std::vector<std::size_t> widths(layer.size());
  double total = 0, used = 0;
  for (std::size_t e = 0; e < layer.size(); ++e) {
    widths[e] = importance[e].empty() ? layer.experts().width(e) : 0;
    total += costs[e] * static_cast<double>(order[e].size());
    double rank = infinity;
    for (std::size_t first = 0, last = 0; first < order[e].size(); first = last) {
      last = std::min(first + budget.multiple, order[e].size());
      double sum = 0;
      for (std::size_t i = first; i < last; ++i)
        sum += importance[e][order[e][i]];
      const double paid = costs[e] * static_cast<double>(last - first);
      // Rounding must not put a block before its forerunner.
      rank = std::min(rank, first < budget.least_width || paid == 0 ? infinity : sum / paid);
      blocks.push_back({e, last, paid, rank});
    }
  }
  std::sort(blocks.begin(), blocks.end(), [](const block& a, const block& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.id != b.id ? a.id < b.id : a.width < b.width;
  });
  const double most = budget.share * total * (1 + 1e-12);
  for (const block& b : blocks) {
    if (b.rank != infinity && used + b.cost > most)
      break;
    used += b.cost;
    widths[b.id] = b.width;
  }
  return widths;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
