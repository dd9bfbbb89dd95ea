// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <memory_resource>
#include <string>
#include <string_view>
#include <utility>

namespace hmoe::io::models {

/// DeepSeek-V4: routing::presets::deepseek_v4, experts with the clamped gate of swiglu_limit, a shared expert. Its
/// first layers (hash_moe in mlp_layer_types), whose experts hang on the token's vocabulary id, are refused.
struct deepseek_v4 : glu_family<routing::presets::deepseek_v4<float>, hmoe::experts::clamped<hmoe::experts::silu>> {
  static constexpr std::string_view model_type = "deepseek_v4";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    const auto kinds = config.texts({"mlp_layer_types"});
    const std::size_t hashed = config.size_or({"num_hash_layers"}, 3);
    require(kinds.empty() ? layer >= hashed : layer < kinds.size() && kinds[layer] == "moe", config.name(), ": layer ",
            layer, " chooses experts by vocabulary ids (mlp_layer_types), which load_layer does not read");
    config.require_text({"hidden_act"}, {"silu", "swish"});
    config.require_text({"scoring_func"}, {"sqrtsoftplus"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"n_routed_experts", "num_local_experts"}),
                             .width = config.size({"moe_intermediate_size", "intermediate_size"})};
    result.shared_width = result.width;
    const std::string at = "layers." + std::to_string(layer);
    layer_names hub{.block = at + ".ffn.",
                    .router = {{"router.weight", "gate.weight", result.experts, result.d_model},
                               {"router.selection_bias", "gate.bias", 1, result.experts}},
                    .experts = numbered_experts("w1", "w3", "w2"),
                    .shared = {.lanes = {"shared_experts.w1.weight", "shared_experts.w3.weight"},
                               .down = "shared_experts.w2.weight"}};
    layer_names current = hub;
    current.block = at + ".mlp.";
    current.router[1].name = "gate.e_score_correction_bias";
    current.experts = fused_experts();
    current.shared = single_expert("shared_experts");
    result.names = {std::move(hub), std::move(current)};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model,
            layer.experts,
            {layer.experts, {config.size({"num_experts_per_tok"})}},
            {.factor = config.number({"routed_scaling_factor"})}};
  }
  [[nodiscard]] static experts_type make_experts(const model_config& config, const layer_description& layer,
                                                 std::pmr::memory_resource* memory) {
    return experts_type{bank_type(layer.d_model, layer.widths(), hmoe::experts::biases::none,
                                  {.limit = config.number({"swiglu_limit"})}, memory)};
  }
};

} // namespace hmoe::io::models
