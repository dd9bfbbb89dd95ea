// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// ERNIE-4.5: routing::presets::ernie_4_5 with moe_norm_min, shared experts that are stored as one.
struct ernie4_5_moe : glu_family<routing::presets::ernie_4_5<float>> {
  static constexpr std::string_view model_type = "ernie4_5_moe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_sparse((layer + 1) % config.size_or({"moe_layer_interval"}, 1, 1) == 0, layer, "moe_layer_interval");
    config.require_sparse(layer >= config.size_or({"moe_layer_start_index"}, 1), layer, "moe_layer_start_index");
    const double last = config.number_or({"moe_layer_end_index"}, -1); // -1: the last layer
    config.require_sparse(last == -1 || static_cast<double>(layer) <= last, layer, "moe_layer_end_index");
    config.require_text({"hidden_act"}, {"silu", "swish"});
    require(!config.flag_or({"use_bias"}, false), config.name(),
            ": \"use_bias\" is true, this family's experts have none");
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"moe_num_experts", "num_experts"}),
                             .width = config.size({"moe_intermediate_size"})};
    result.shared_width = result.width * config.size_or({"moe_num_shared_experts"}, 2);
    result.names = numbered_or_fused(
        {.block = "layers." + std::to_string(layer) + ".mlp.",
         .router = {{"router.weight", "gate.weight", result.experts, result.d_model},
                    {"router.selection_bias", "moe_statics.e_score_correction_bias", 1, result.experts}},
         .experts = numbered_experts("gate_proj", "up_proj", "down_proj"),
         .shared = single_expert("shared_experts")});
    result.names[1].router[1].name = "gate.moe_statics.e_score_correction_bias";
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model,
            layer.experts,
            {layer.experts, {config.size({"moe_k", "num_experts_per_tok"})}},
            {config.number_or({"moe_norm_min"}, 1e-12)},
            {layer.shared_width == 0 ? std::size_t{0} : std::size_t{1}}};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
