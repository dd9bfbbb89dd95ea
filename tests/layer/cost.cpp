// SPDX-License-Identifier: MIT
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/widths.hpp>
#include <hmoe/layer/cost.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

using hmoe::index_t;

namespace {
/// Each inner list: the experts of one token.
hmoe::assignment<float> assignment_of(const std::vector<std::vector<index_t>>& experts) {
  hmoe::assignment<float> assigned;
  assigned.resize_tokens(experts.size());
  for (std::size_t t = 0; t < experts.size(); ++t)
    assigned.offsets()[t + 1] = assigned.offsets()[t] + static_cast<index_t>(experts[t].size());
  assigned.resize_entries();
  for (std::size_t t = 0; t < experts.size(); ++t)
    std::copy(experts[t].begin(), experts[t].end(), assigned.experts().data() + assigned.offsets()[t]);
  return assigned;
}
} // namespace

TEST_CASE("the paper's 0.4B layer: 3·768·12288 expert weights, 12 of which make 340 million") {
  const hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>{
                                  768, hmoe::widths::arithmetic{.count = 8, .total = 12288, .first = 9, .last = 23}}},
                              hmoe::routing::top_k_router<float>{768, 8, 2}};
  const hmoe::layer_cost cost = layer.cost();
  CHECK(cost.router_parameters == 8 * 768);
  CHECK(cost.router_flops_per_token == 2.0 * 8 * 768);
  CHECK(cost.parameters() - cost.router_parameters == 3UL * 768 * 12288);
  CHECK(12 * (cost.parameters() - cost.router_parameters) == 339738624);
  // With the embedding, the head and the attention of 12 blocks this is the paper's 417 million.
  CHECK(12 * (cost.parameters() - cost.router_parameters) + 2UL * 32000 * 768 + 12UL * 4 * 768 * 768 == 417202176);
  CHECK(cost.bytes() == 4 * cost.parameters());
  CHECK(cost.experts[0].width == 864);
  CHECK(cost.experts[7].width == 2208);
  CHECK(cost.experts[7].parameters == 3UL * 768 * 2208);
  CHECK(cost.experts[7].bytes == 4 * cost.experts[7].parameters);
  CHECK(cost.experts[7].flops_per_token == 2.0 * 3 * 768 * 2208);

  const auto used = cost.activated(assignment_of({{0, 7}, {1}, {}, {0, 1}}));
  CHECK(used.experts == 5.0 / 4);
  CHECK(used.width == (2 * 864 + 2 * 1056 + 2208) / 4.0);
  CHECK(used.parameters == 3.0 * 768 * used.width + 8 * 768);
  CHECK(used.bytes == 4 * used.parameters);
  CHECK(used.flops == 2.0 * 3 * 768 * used.width + 2.0 * 8 * 768);
}

TEST_CASE("biases are parameters but no products; an empty batch activates the router only") {
  using namespace hmoe::experts;
  const hmoe::moe_layer layer{
      hmoe::expert_set{glu_bank<double, silu>{5, {3}, biases::all}, mlp_bank<double, relu>{5, {4}, biases::all}},
      hmoe::routing::top_k_router<double>{5, 2, 1}};
  const hmoe::layer_cost cost = layer.cost();
  CHECK(cost.experts[0].parameters == 3 * 5 * 3 + 3 + 3 + 5);
  CHECK(cost.experts[0].flops_per_token == 2.0 * 3 * 5 * 3);
  CHECK(cost.experts[1].parameters == 2 * 5 * 4 + 4 + 5);
  CHECK(cost.experts[1].flops_per_token == 2.0 * 2 * 5 * 4);
  CHECK(cost.bytes() == 8 * cost.parameters());
  const auto nothing = cost.activated(assignment_of({}));
  CHECK(nothing.experts == 0);
  CHECK(nothing.parameters == 10);
  CHECK(nothing.flops == 20);
  CHECK_THROWS_WITH_AS((void)cost.activated(assignment_of({{2}})),
                       "hmoe: the assignment names expert 2, the layer has 2", hmoe::error);
}
