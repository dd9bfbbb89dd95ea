// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/widths.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace benchmarks {

/// A layer to measure: SwiGLU experts of the given widths behind a top-k softmax router.
struct layer_shape {
  std::string name;
  std::size_t d_model;
  std::vector<std::size_t> widths;
  std::size_t top_k;
};

/// The demo's layer, the paper's 0.4B layer with its homogeneous twin and the twin padded to the widest expert, and
/// OLMoE's layer.
inline std::vector<layer_shape> shapes() {
  using namespace hmoe::widths;
  return {
      {"demo", 64, arithmetic{.count = 8, .total = 1024}, 2},
      {"hmoe_0.4b", 768, arithmetic{.count = 8, .total = 12288}, 2},
      {"hmoe_0.4b_equal", 768, uniform{.count = 8, .total = 12288}, 2},
      {"hmoe_0.4b_padded", 768, std::vector<std::size_t>(8, 2208), 2},
      {"olmoe", 2048, uniform{.count = 64, .total = 65536}, 8},
  };
}

} // namespace benchmarks
