// SPDX-License-Identifier: MIT
// expect: hmoe::context: Backend is final
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
struct mine : backends::reference {};
#else
struct mine final : backends::reference {};
#endif

void run(const moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>& layer,
         matrix_view<const float> x, matrix_view<float> y) {
  layer.forward(context{mine{}}, x, y);
}
