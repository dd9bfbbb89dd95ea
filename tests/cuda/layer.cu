// SPDX-License-Identifier: MIT
// Whole layers in float beside the host's.
#include "layer_checks.hpp"

using namespace cuda_checks;

namespace {

const objective losses_of_all_kinds{losses::parameter_penalty{0.1}, losses::load_balance{0.05},
                                    losses::router_entropy{0.03}, losses::z{0.01}};

TEST_CASE("A layer of unequal SwiGLU experts: forward, losses, backward") {
  moe_layer host{expert_set{experts::glu_bank<float, experts::silu>{24, {3, 17, 9, 32}}},
                 routing::top_k_router<float>{24, 4, 2}};
  check_step<float>(host, 37, 2e-5, losses_of_all_kinds);
}

TEST_CASE("Few tokens, and experts without any [race]") {
  moe_layer host{expert_set{experts::glu_bank<float, experts::silu>{12, {3, 7, 5, 1, 2, 4}}},
                 routing::top_k_router<float>{12, 6, 1}};
  for (const std::size_t tokens : {0U, 1U, 3U})
    check_step<float>(host, tokens, 2e-5, losses_of_all_kinds);
}

} // namespace
