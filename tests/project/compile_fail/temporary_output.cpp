// SPDX-License-Identifier: MIT
// expect: hmoe: a temporary matrix was given as an output, or as the source of a view to write through
#include <hmoe/hmoe.hpp>

using namespace hmoe;

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

void run(const layer_type& layer, const context<backends::reference>& cpu, matrix<float>& y) {
#ifdef HMOE_MUST_COMPILE
  layer.forward(cpu, matrix<float>(3, 8), y); // as an input it lives long enough
#else
  layer.forward(cpu, y, matrix<float>(3, 8));
#endif
}
