// SPDX-License-Identifier: MIT
// expect: hmoe::backends::cuda: Score is not routing::linear<float, Function, Bias>
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/routing/presets.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using preset = routing::presets::mixtral<float>;
#else
using preset = routing::presets::switch_transformer<float>;
#endif

std::size_t bytes(const preset& router) { return backends::cuda_detail::router_bytes(router); }
