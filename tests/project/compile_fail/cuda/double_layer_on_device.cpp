// SPDX-License-Identifier: MIT
// expect: a layer over double has no form on the device
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using real_type = float;
#else
using real_type = double;
#endif

using host_layer = moe_layer<expert_set<experts::glu_bank<real_type, experts::silu>>, routing::top_k_router<real_type>>;

auto run(const backends::cuda_context& gpu, const host_layer& layer) { return backends::copy_to(gpu, layer); }
