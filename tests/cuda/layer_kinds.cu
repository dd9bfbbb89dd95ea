// SPDX-License-Identifier: MIT
// A layer of several kinds of experts. In half, which has fewer kernels than float.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

TEST_CASE("Experts of all kinds in one layer, some of them chosen by threshold [race]") {
  moe_layer host{expert_set{experts::glu_bank<float, experts::silu>{10, {5, 12}, experts::biases::all},
                            experts::mlp_bank<float, experts::gelu>{10, {7, 3}, experts::biases::all},
                            experts::low_rank_bank<float>{10, {2}}, experts::constant_bank<float>{10, 2},
                            experts::identity_bank<float>{10}, experts::zero_bank<float>{10}},
                 routing::threshold_router<float>{10, 9, 0.1}};
  check_step<hmoe::half>(host, 23, 3e-3, objective{losses::parameter_penalty{0.1}, losses::importance{0.2}});
}

} // namespace
