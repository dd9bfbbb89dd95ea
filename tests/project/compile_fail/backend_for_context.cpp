// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: the first argument of the pass is a backend, not a context: make one
#include <hmoe/hmoe.hpp>

#include <vector>

using namespace hmoe;

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

void run(const layer_type& layer, const context<backends::reference>& cpu, const matrix<float>& x, matrix<float>& y) {
#ifdef HMOE_MUST_COMPILE
  layer.forward(cpu, x, y);
#else
  layer.forward(backends::reference{}, x, y);
#endif
}
