// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: the output \(y, or dx of backward\) is const, and the pass writes it
#include <hmoe/hmoe.hpp>

#include <vector>

using namespace hmoe;

using layer_type = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

void run(const layer_type& layer, const context<backends::reference>& cpu, const matrix<float>& x, matrix<float>& y) {
#ifdef HMOE_MUST_COMPILE
  auto tape = layer.make_tape(3);
  auto g = layer.make_gradients();
  layer.backward(cpu, tape, x, y, g);
#else
  auto tape = layer.make_tape(3);
  auto g = layer.make_gradients();
  layer.backward(cpu, tape, y, x, g);
#endif
}
