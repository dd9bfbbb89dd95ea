// SPDX-License-Identifier: MIT
// expect: an element of Banks has no form on the device
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using bank_type = experts::identity_bank<float>;
#else
using bank_type = experts::bank_of<experts::any_expert<float>>;
#endif

using host_layer = moe_layer<expert_set<bank_type>, routing::top_k_router<float>>;

auto run(const backends::cuda_context& gpu, const host_layer& layer) { return backends::copy_to(gpu, layer); }
