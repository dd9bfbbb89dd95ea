// SPDX-License-Identifier: MIT
// expect: hmoe::compress::nested_levels: a bank of this layer has no neurons and is not packed
#include <hmoe/compress/nested_levels.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

using namespace hmoe;
using bank = experts::glu_bank<float, experts::silu>;
#ifdef HMOE_MUST_COMPILE
using set = expert_set<bank, bank>;
#else
using set = expert_set<bank, experts::identity_bank<float>>;
#endif
using layer = moe_layer<set, routing::top_k_router<float>>;

std::size_t levels(const compress::nested_levels<layer>& part) { return part.levels(); }
