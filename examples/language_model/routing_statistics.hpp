// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/statistics/expert_load.hpp>

#include "decoder.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace language_model {

/// The load of the routed experts of each layer over a number of tokens.
using routing_statistics = std::vector<hmoe::statistics::expert_load>;

inline routing_statistics no_statistics(std::size_t layers, std::size_t experts) {
  return routing_statistics(layers, hmoe::statistics::expert_load(experts));
}

/// Adds the model's last batch.
template <class T> void add_batch(routing_statistics& statistics, const decoder<T>& model) {
  for (std::size_t l = 0; l < statistics.size(); ++l)
    statistics[l].add(model.layer(l).trace());
}

/// f of each layer's load, with experts_per_token() or shares() for instance.
template <class F> auto per_layer(const routing_statistics& statistics, F f) {
  std::vector<decltype(f(statistics.front()))> values;
  values.reserve(statistics.size());
  for (const auto& load : statistics)
    values.push_back(f(load));
  return values;
}

/// Mean activated width of a token, per layer; every token adds `shared`, the width of the shared experts.
inline std::vector<double> width_per_layer(const routing_statistics& statistics, std::span<const std::size_t> widths,
                                           std::size_t shared) {
  return per_layer(statistics, [&](const auto& load) { return load.per_token(widths) + static_cast<double>(shared); });
}

} // namespace language_model
