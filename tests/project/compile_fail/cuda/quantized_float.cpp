// SPDX-License-Identifier: MIT
// expect: W is neither S nor
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using token_type = bfloat16;
#else
using token_type = float;
#endif

using host_layer = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>;

auto run(const backends::cuda_context& gpu, const host_layer& layer) {
  return backends::copy_to<token_type, q8_block>(gpu, layer);
}
