// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// Granite 3.0 MoE: routing::presets::granite_moe; gate and up one above the other in input_linear.
struct granitemoe : glu_family<routing::presets::granite_moe<float>> {
  static constexpr std::string_view model_type = "granitemoe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_local_experts", "num_experts"}),
                             .width = config.size({"intermediate_size"})};
    const std::string block = "layers." + std::to_string(layer) + ".block_sparse_moe.";
    result.names = {
        {.block = block,
         .router = {{"router.weight", "router.layer.weight", result.experts, result.d_model}},
         .experts = {.lanes = {"input_linear.weight"}, .down = "output_linear.weight", .order = lane_order::stacked}},
        {.block = block,
         .router = {{"router.weight", "router.weight", result.experts, result.d_model}},
         .experts = fused_experts()}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, config.size({"num_experts_per_tok"})};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
