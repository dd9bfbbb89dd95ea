// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/weightings/normalized.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// DBRX: routing::presets::dbrx, weights over their q-norm, q = moe_normalize_expert_weights (null is refused); each
/// matrix of all experts is one tensor [E·h × d].
struct dbrx : glu_family<routing::presets::dbrx<float, routing::normalized<>>> {
  static constexpr std::string_view model_type = "dbrx";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"n_layers", "num_hidden_layers"});
    const model_config ffn = config.part("ffn_config");
    if (ffn.has({"ffn_act_fn"}))
      ffn.part("ffn_act_fn").require_text({"name"}, {"silu"});
    layer_description result{.d_model = config.size({"d_model", "hidden_size"}),
                             .experts = ffn.size({"moe_num_experts"}),
                             .width = ffn.size({"ffn_hidden_size"})};
    result.names = {{.block = "blocks." + std::to_string(layer) + ".ffn.",
                     .router = {{"router.weight", "router.layer.weight", result.experts, result.d_model}},
                     .experts = {.lanes = {"experts.mlp.w1", "experts.mlp.v1"},
                                 .down = "experts.mlp.w2",
                                 .down_transposed = true,
                                 .flat = true}}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    const model_config ffn = config.part("ffn_config");
    return {
        layer.d_model, layer.experts, ffn.size({"moe_top_k"}), {.order = ffn.number({"moe_normalize_expert_weights"})}};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
