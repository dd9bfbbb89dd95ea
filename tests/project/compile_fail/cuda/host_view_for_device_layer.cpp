// SPDX-License-Identifier: MIT
// expect: a matrix_view of one memory space was given where the other is expected
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

using host_layer = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

#ifdef HMOE_MUST_COMPILE
using space = device_space;
#else
using space = host_space;
#endif

void run(const backends::cuda_layer_of<host_layer>& layer, const backends::cuda_context& gpu,
         matrix_view<const float, space> x, matrix_view<float, device_space> y) {
  layer.forward(gpu, x, y);
}
