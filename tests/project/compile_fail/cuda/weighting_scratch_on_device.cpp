// SPDX-License-Identifier: MIT
// expect: hmoe::backends::cuda: Weighting wants scratch \(it has scratch_size\): kernels give it none
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/weightings/normalized.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using preset = routing::presets::dbrx<float>;
#else
using preset = routing::presets::dbrx<float, routing::normalized<>>;
#endif

std::size_t bytes(const preset& router) { return backends::cuda_detail::router_bytes(router); }
