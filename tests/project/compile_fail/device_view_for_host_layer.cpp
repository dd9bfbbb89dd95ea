// SPDX-License-Identifier: MIT
// expect: a matrix_view of one memory space was given where the other is expected
#include <hmoe/hmoe.hpp>

using namespace hmoe;

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

#ifdef HMOE_MUST_COMPILE
using space = host_space;
#else
using space = device_space;
#endif

void run(const layer_type& layer, const context<backends::reference>& cpu, matrix_view<const float, space> x,
         matrix_view<float> y) {
  layer.forward(cpu, x, y);
}
