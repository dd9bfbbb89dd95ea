// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: the input \(x, or dy of backward\) has another value_type than the layer: give both float
#include <hmoe/hmoe.hpp>

#include <vector>

using namespace hmoe;

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

void run(const layer_type& layer, const context<backends::reference>& cpu, const matrix<float>& x, matrix<float>& y) {
#ifdef HMOE_MUST_COMPILE
  layer.forward(cpu, x, y);
#else
  layer.forward(cpu, matrix<double>(3, 4), y);
#endif
}
