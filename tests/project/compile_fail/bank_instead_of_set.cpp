// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: Experts is not an hmoe::expert_set: wrap the banks, as in expert_set\{bank_a, bank_b\}
#include <hmoe/hmoe.hpp>

using namespace hmoe;

using bank = experts::glu_bank<float, experts::silu>;

#ifdef HMOE_MUST_COMPILE
moe_layer layer{expert_set{bank(4, {1, 2})}, routing::top_k_router<float>(4, 2, 1)};
#else
moe_layer layer{bank(4, {1, 2}), routing::top_k_router<float>(4, 2, 1)};
#endif
