// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: the input \(x, or dy of backward\) is a list of values, not a matrix: say how many rows
#include <hmoe/hmoe.hpp>

#include <vector>

using namespace hmoe;

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

void run(const layer_type& layer, const context<backends::reference>& cpu, const matrix<float>& x, matrix<float>& y) {
#ifdef HMOE_MUST_COMPILE
  std::vector<float> values(12);
  layer.forward(cpu, matrix_view<const float>(values.data(), 3, 4), y);
#else
  layer.forward(cpu, std::vector<float>(12), y);
#endif
}
