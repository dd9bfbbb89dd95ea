// SPDX-License-Identifier: MIT
// expect: the router of this layer has no selection bias to move
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using select_type = routing::biased<float, routing::top_k<>>;
#else
using select_type = routing::top_k<>;
#endif

using host_layer = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>,
                             routing::router<routing::linear<float, routing::sigmoid>, select_type>>;

void run(const backends::cuda_context& gpu, backends::cuda_layer_of<host_layer>& layer,
         const backends::device_matrix<double>& load) {
  layer.update_bias_by_sign(gpu, load, 1e-3);
}
