// SPDX-License-Identifier: MIT
// expect: quantised weights are for inference
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using weight_type = bfloat16;
#else
using weight_type = q8_block;
#endif

using host_layer = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

auto run(const backends::cuda_layer_of<host_layer, bfloat16, weight_type>& layer) { return layer.make_tape(8); }
