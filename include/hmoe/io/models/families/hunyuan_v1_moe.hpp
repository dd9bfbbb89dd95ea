// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// Hunyuan-A13B: routing::presets::hunyuan, one shared expert as wide as the others. Numbers may differ from layer to
/// layer.
struct hunyuan_v1_moe : glu_family<routing::presets::hunyuan<float>> {
  static constexpr std::string_view model_type = "hunyuan_v1_moe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size_of_layer({"num_experts", "num_local_experts"}, layer),
                             .width = config.size({"intermediate_size"}),
                             .number = layer};
    result.shared_width = result.width;
    result.names = numbered_or_fused({.block = "layers." + std::to_string(layer) + ".mlp.",
                                      .router = {{"router.weight", "gate.wg.weight", result.experts, result.d_model}},
                                      .experts = numbered_experts("gate_proj", "up_proj", "down_proj"),
                                      .shared = single_expert("shared_mlp")});
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, config.size_of_layer({"moe_topk", "num_experts_per_tok"}, layer.number)};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
