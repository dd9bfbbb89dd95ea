// SPDX-License-Identifier: MIT
// expect: Selection does not choose for one token
#include <hmoe/backends/cuda.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using selection_type = routing::top_k<>;
#else
using selection_type = routing::expert_choice;
#endif

using host_layer = moe_layer<expert_set<experts::glu_bank<float, experts::silu>>,
                             routing::router<routing::linear<float>, selection_type>>;

auto run(const backends::cuda_context& gpu, const host_layer& layer) { return backends::copy_to(gpu, layer); }
