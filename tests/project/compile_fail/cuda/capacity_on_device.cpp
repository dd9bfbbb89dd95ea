// SPDX-License-Identifier: MIT
// expect: Dispatch drops tokens
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using dispatch_type = dispatch::scattered;
#else
using dispatch_type = dispatch::sorted<capacity::by_factor>;
#endif

using host_layer =
    moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>, dispatch_type>;

auto run(const backends::cuda_context& gpu, const host_layer& layer) { return backends::copy_to(gpu, layer); }
