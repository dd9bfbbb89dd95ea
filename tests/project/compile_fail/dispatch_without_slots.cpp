// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: Dispatch does not model hmoe::dispatcher: it needs forward, backward, slots
#include <hmoe/hmoe.hpp>

using namespace hmoe;

struct mine : dispatch::looped {
#ifndef HMOE_MUST_COMPILE
  static std::size_t slots() = delete;
#endif
};

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>, mine>;

void run(const layer_type& layer, const context<backends::reference>& cpu, matrix_view<const float> x,
         matrix_view<float> y) {
  layer.forward(cpu, x, y);
}
