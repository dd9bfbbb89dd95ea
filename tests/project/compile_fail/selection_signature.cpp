// SPDX-License-Identifier: MIT
// expect: hmoe::routing::router: Selection models neither hmoe::selection
#include <hmoe/routing/router.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
const auto first = [](vector_view<const float>, vector_view<index_t> chosen) { return chosen[0] = 0, 1U; };
#else
const auto first = [](vector_view<const float>) { return 0U; };
#endif

routing::router router(routing::linear<float>(4, 4), first, routing::renormalized{});
