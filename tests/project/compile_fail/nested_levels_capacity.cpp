// SPDX-License-Identifier: MIT
// expect: hmoe::compress::nested_levels: the layer's dispatch strategy has a capacity, which would count rows per
#include <hmoe/compress/nested_levels.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

using namespace hmoe;
using bank = experts::glu_bank<float, experts::silu>;
#ifdef HMOE_MUST_COMPILE
using strategy = dispatch::sorted<>;
#else
using strategy = dispatch::sorted<capacity::by_factor>;
#endif
using layer = moe_layer<expert_set<bank>, routing::top_k_router<float>, strategy>;

std::size_t levels(const compress::nested_levels<layer>& part) { return part.levels(); }
