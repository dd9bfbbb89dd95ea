// SPDX-License-Identifier: MIT
// expect: hmoe::backends::cuda: Shared is none of routing::no_shared, routing::always_on and
// routing::sigmoid_gated<float>
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/routing/weightings/raw.hpp>

using namespace hmoe;

struct own_shared : routing::always_on {};

#ifdef HMOE_MUST_COMPILE
using shared = routing::always_on;
#else
using shared = own_shared;
#endif

std::size_t bytes(const routing::router<routing::linear<float>, routing::top_k<2>, routing::raw, shared>& router) {
  return backends::cuda_detail::router_bytes(router);
}
