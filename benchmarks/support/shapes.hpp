// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/widths.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

namespace benchmarks {

/// A layer to measure: SwiGLU experts of the given widths behind a softmax router, which picks the top_k best experts,
/// or those that reach top_p together where that is not 0. The mixed layer has experts of other kinds besides.
struct layer_shape {
  std::string name;
  std::size_t d_model;
  std::vector<std::size_t> widths; ///< of the SwiGLU experts
  std::size_t top_k;
  double top_p = 0;
  std::vector<std::size_t> mlp_widths = {}; ///< of two-layer experts with GELU
  std::size_t identities = 0;               ///< experts that return their input

  [[nodiscard]] std::size_t experts() const { return widths.size() + mlp_widths.size() + identities; }
  [[nodiscard]] bool mixed() const { return experts() != widths.size(); }
  [[nodiscard]] bool unequal() const { return std::ranges::min(widths) != std::ranges::max(widths); }
  /// Weights of one copy of the layer.
  [[nodiscard]] std::size_t parameters() const {
    const auto sum = [](const std::vector<std::size_t>& list) {
      return std::accumulate(list.begin(), list.end(), std::size_t{0});
    };
    return d_model * (3 * sum(widths) + 2 * sum(mlp_widths) + experts());
  }
};

/// The grid. Each unequal layer of the paper stands beside its homogeneous twin.
inline std::vector<layer_shape> shapes() {
  using namespace hmoe::widths;
  return {
      {"demo", 64, arithmetic{.count = 8, .total = 1024}, 2},
      {"hmoe_0.4b", 768, arithmetic{.count = 8, .total = 12288}, 2},
      {"hmoe_0.4b_top_p", 768, arithmetic{.count = 8, .total = 12288}, 2, 0.6},
      {"hmoe_0.4b_equal", 768, uniform{.count = 8, .total = 12288}, 2},
      {"hmoe_3b", 2048, arithmetic{.count = 8, .total = 32768}, 2},
      {"hmoe_3b_equal", 2048, uniform{.count = 8, .total = 32768}, 2},
      {"olmoe", 2048, uniform{.count = 64, .total = 65536}, 8},
      {"qwen3_30b_a3b", 2048, uniform{.count = 128, .total = 98304}, 8},
      {"wide", 4096, uniform{.count = 8, .total = 114688}, 2}, // as Mixtral's
      {"mixed", 768, {864, 1248, 1632, 2016}, 2, 0, {1536, 1536}, 2},
  };
}

} // namespace benchmarks
