// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// Ids of experts, some of them together: each id in at most one group.
using expert_groups = std::vector<std::vector<std::size_t>>;

/// Groups of experts with similar outputs, so that `count` experts are left when each group becomes one. Experts are
/// clustered as in HC-SMoE (arXiv 2410.08589): the distance of two experts is ‖ō_a − ō_b‖ of their mean outputs, that
/// of two clusters the mean over all pairs (average linkage), and the two nearest clusters become one, again and again;
/// ties go to the lower ids. Unlike there, ō is the mean over the expert's own rows of the calibration, which is what
/// the layer computes anyway; an expert without a row has ō = 0. Experts of different banks, and those without neurons,
/// never come together. Groups of one are left out. Time N³ for N experts. hmoe::error where fewer than `count` or,
/// with these limits, more experts would be left.
template <class Layer>
[[nodiscard]] expert_groups group_by_output(const Layer& layer, const calibration& sums, std::size_t count) {
  require(sums.size() == layer.size(), "the calibration is of a layer with ", sums.size(), " experts, this one has ",
          layer.size());
  require(count >= 1 && count <= layer.size(), count, " of ", layer.size(), " experts shall be left");
  const std::size_t n = layer.size();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> distance(n, std::vector<double>(n, infinity)); // of pairs within a bank
  layer.experts().for_each_bank([&]<class Bank>(const Bank&, vector_view<const std::size_t> ids) {
    if constexpr (neuron_bank<Bank>)
      for (const std::size_t a : ids)
        for (const std::size_t b : ids) {
          double squared = 0;
          for (std::size_t i = 0; i < sums.d_model(); ++i) {
            const auto mean = [&](const expert_sums& e) {
              return e.rows == 0 ? 0.0 : e.output[i] / static_cast<double>(e.rows);
            };
            const double difference = mean(sums.expert(a)) - mean(sums.expert(b));
            squared += difference * difference;
          }
          distance[a][b] = std::sqrt(squared);
        }
  });
  expert_groups clusters;
  for (std::size_t e = 0; e < n; ++e)
    clusters.push_back({e});
  for (std::size_t left = n; left > count; --left) {
    std::size_t first = n, second = n;
    double nearest = infinity;
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = a + 1; b < n && !clusters[a].empty(); ++b)
        if (!clusters[b].empty() && distance[a][b] < nearest) {
          nearest = distance[a][b];
          first = a;
          second = b;
        }
    require(
        first != n, count, " experts shall be left, but the ", left,
        " clusters that there are cannot come together: experts of different banks and experts without neurons stay "
        "apart");
    const auto size_a = static_cast<double>(clusters[first].size()),
               size_b = static_cast<double>(clusters[second].size());
    for (std::size_t c = 0; c < n; ++c)
      distance[first][c] = distance[c][first] =
          (size_a * distance[first][c] + size_b * distance[second][c]) / (size_a + size_b);
    clusters[first].insert(clusters[first].end(), clusters[second].begin(), clusters[second].end());
    clusters[second].clear();
  }
  std::erase_if(clusters, [](const auto& cluster) { return cluster.size() < 2; });
  for (auto& cluster : clusters)
    std::ranges::sort(cluster);
  return clusters;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
