// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <string>

namespace hmoe::io::models {

/// Mixtral 8x7B, 8x22B: routing::presets::mixtral, experts of silu. router_jitter_noise is for training and not read.
struct mixtral : glu_family<routing::presets::mixtral<float>> {
  static constexpr std::string_view model_type = "mixtral";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_local_experts", "num_experts"}),
                             .width = config.size({"intermediate_size"})};
    const std::string at = "layers." + std::to_string(layer);
    const router_tensor router{"router.weight", "gate.weight", result.experts, result.d_model};
    result.names = {
        {.block = at + ".block_sparse_moe.", .router = {router}, .experts = numbered_experts("w1", "w3", "w2")},
        {.block = at + ".mlp.", .router = {router}, .experts = fused_experts()}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, config.size({"num_experts_per_tok"})};
  }
};

} // namespace hmoe::io::models
