// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: Experts and Router differ in value_type: give both float, or both double
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using scalar = float;
#else
using scalar = double;
#endif

moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(4, {1, 2})}, routing::top_k_router<scalar>(4, 2, 1)};
