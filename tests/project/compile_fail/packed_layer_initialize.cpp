// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: initialize: the experts of this layer are packed for inference and have no parameters to train
#include <hmoe/backends/simd.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

void run() {
  moe_layer plain{expert_set{experts::glu_bank<float, experts::silu>{8, {4, 5}}},
                  routing::top_k_router<float>{8, 2, 1}};
  auto packed = backends::simd<>::pack(plain);
  const context cpu{backends::simd{}};
#ifdef HMOE_MUST_COMPILE
  plain.initialize(seed{1});
#else
  packed.initialize(seed{1});
#endif
}
