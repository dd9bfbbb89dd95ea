// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace language_model {

/// How often each expert of each layer was active over a number of tokens.
struct routing_statistics {
  std::vector<std::vector<std::uint64_t>> activations; ///< [layer][expert]
  std::uint64_t tokens = 0;

  routing_statistics() = default;
  routing_statistics(std::size_t layers, std::size_t experts)
      : activations(layers, std::vector<std::uint64_t>(experts, 0)) {}

  template <class T> void add(std::size_t layer, const hmoe::assignment<T>& assignment) {
    for (const auto expert : assignment.experts())
      ++activations[layer][expert];
  }

  void merge(const routing_statistics& other) {
    tokens += other.tokens;
    for (std::size_t l = 0; l < activations.size(); ++l) {
      for (std::size_t e = 0; e < activations[l].size(); ++e)
        activations[l][e] += other.activations[l][e];
    }
  }

  /// Sum of the widths activated in all layers by all tokens.
  std::uint64_t total_width(std::span<const std::size_t> widths) const {
    std::uint64_t sum = 0;
    for (const auto& layer : activations)
      sum += width_of(layer, widths);
    return sum;
  }

  /// Mean activated width of a token, per layer.
  std::vector<double> width_per_layer(std::span<const std::size_t> widths) const {
    std::vector<double> means;
    means.reserve(activations.size());
    for (const auto& layer : activations)
      means.push_back(per_token(width_of(layer, widths)));
    return means;
  }

  /// Mean number of active experts of a token, per layer.
  std::vector<double> experts_per_layer() const {
    std::vector<double> means;
    means.reserve(activations.size());
    for (const auto& layer : activations)
      means.push_back(per_token(sum_of(layer)));
    return means;
  }

  /// Share of all activations that goes to each expert, per layer; sums to 1.
  std::vector<std::vector<double>> share_per_layer() const {
    std::vector<std::vector<double>> shares;
    for (const auto& layer : activations) {
      const double sum = static_cast<double>(sum_of(layer));
      auto& row = shares.emplace_back();
      for (const auto count : layer)
        row.push_back(sum > 0 ? static_cast<double>(count) / sum : 0.0);
    }
    return shares;
  }

private:
  static std::uint64_t sum_of(const std::vector<std::uint64_t>& layer) {
    std::uint64_t sum = 0;
    for (const auto count : layer)
      sum += count;
    return sum;
  }

  static std::uint64_t width_of(const std::vector<std::uint64_t>& layer, std::span<const std::size_t> widths) {
    std::uint64_t sum = 0;
    for (std::size_t e = 0; e < layer.size(); ++e)
      sum += layer[e] * widths[e];
    return sum;
  }

  double per_token(std::uint64_t sum) const {
    return tokens > 0 ? static_cast<double>(sum) / static_cast<double>(tokens) : 0.0;
  }
};

} // namespace language_model
