// SPDX-License-Identifier: MIT
// expect: the weights of a packed_bank are laid out for backends::simd
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using backend_type = backends::simd<>;
#else
using backend_type = backends::reference;
#endif

void run(const experts::glu_bank<float, experts::silu>& bank, matrix_view<const float> x, matrix_view<float> y) {
  const moe_layer layer{expert_set{backends::simd<>::pack(bank)}, routing::top_k_router<float>{8, 4, 2}};
  layer.forward(context{backend_type{}}, x, y);
}
