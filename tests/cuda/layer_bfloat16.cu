// SPDX-License-Identifier: MIT
// Layers in bfloat16 beside the host's in float: rounding of tokens, hidden values and results is the difference.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "readme_selection.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

using glu = experts::glu_bank<float, experts::silu>;

TEST_CASE("bfloat16 on tensor cores, top-p with a gated shared expert") {
  moe_layer host{
      expert_set{glu{24, {16, 9, 40, 24, 8}}},
      routing::router<routing::linear<float>, routing::top_p, routing::renormalized, routing::sigmoid_gated<float>>{
          24, 4, 0.6}};
  check_step<bfloat16>(host, 37, 2e-2, objective{losses::parameter_penalty{0.1}, losses::router_entropy{0.03}});
}

TEST_CASE("The selection of the README, and d that is no multiple of 8") {
  moe_layer host{
      expert_set{glu{13, {5, 11, 3, 16}}},
      routing::router{routing::linear<float>{13, 4}, near_best{.share = 0.7, .most = 2}, routing::renormalized{}}};
  check_step<bfloat16>(host, 19, 2e-2);
}

} // namespace
