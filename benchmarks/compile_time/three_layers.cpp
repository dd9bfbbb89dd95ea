// SPDX-License-Identifier: MIT
// Three layers of different policies on the SIMD backend, forward and backward.
#include <hmoe/backends/simd.hpp>
#include <hmoe/hmoe.hpp>

namespace {

using namespace hmoe;

template <class Layer> void train(Layer layer) {
  layer.initialize(seed{1});
  const context cpu{backends::simd<>{}};
  matrix<float> x(4, 64), y(4, 64), dx(4, 64);
  auto tape = layer.make_tape(4);
  auto gradients = layer.make_gradients();
  layer.forward(cpu, x, y, tape);
  layer.backward(cpu, tape, y, dx, gradients);
}

} // namespace

int main() {
  const std::vector<std::size_t> widths{32, 64, 96};
  train(moe_layer{expert_set{experts::glu_bank<float, experts::silu>{64, widths}},
                  routing::top_k_router<float>{64, 3, 2}});
  train(moe_layer{expert_set{experts::mlp_bank<float, experts::gelu>{64, widths}},
                  routing::top_p_router<float>{64, 3, 0.6}, dispatch::looped{}});
  train(moe_layer{expert_set{experts::glu_bank<float, experts::gelu>{64, widths}, experts::identity_bank<float>{64}},
                  routing::top_k_router<float>{64, 4, 2}});
}
