// SPDX-License-Identifier: MIT
// expect: hmoe::routing::any_router: the router's value_type differs from T: use any_router<float, Context> for a router of float, any_router<double, Context> for one of double
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/any_router.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using held = routing::any_router<float, context<backends::reference>>;
#else
using held = routing::any_router<double, context<backends::reference>>;
#endif

inline const held chosen{routing::top_k_router<float>(4, 3, 2)};
