// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: backward: the experts of this layer are packed for inference and have no parameters to train
#include <hmoe/backends/simd.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

void run() {
  moe_layer plain{expert_set{experts::glu_bank<float, experts::silu>{8, {4, 5}}},
                  routing::top_k_router<float>{8, 2, 1}};
  auto packed = backends::simd<>::pack(plain);
  const context cpu{backends::simd{}};
  auto gradients = plain.make_gradients();
  auto tape = plain.make_tape(4);
  matrix<float> dy(4, 8), dx(4, 8);
#ifdef HMOE_MUST_COMPILE
  plain.backward(cpu, tape, dy, dx, gradients);
#else
  decltype(packed)::gradients_type sums{packed.experts(), packed.router()};
  packed.backward(cpu, tape, dy, dx, sums);
#endif
}
