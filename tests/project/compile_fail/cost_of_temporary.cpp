// SPDX-License-Identifier: MIT
// expect: hmoe::moe_layer: cost\(\) of a temporary layer, and its costs are read from it: give the layer a name
#include <hmoe/hmoe.hpp>

using namespace hmoe;

moe_layer<expert_set<experts::identity_bank<float>>, routing::top_k_router<float>, dispatch::scattered> make_layer();

std::size_t width() {
#ifdef HMOE_MUST_COMPILE
  const auto layer = make_layer();
  const layer_cost cost = layer.cost();
#else
  const layer_cost cost = make_layer().cost();
#endif
  return cost.experts[0].width;
}
