// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// Mixtral 8x7B, 8x22B: routing::presets::mixtral, experts of silu. MiniMax-Text-01 (minimax) is another name for it.
struct mixtral : glu_family<routing::presets::mixtral<float>> {
  static constexpr std::string_view model_type = "mixtral";
  static constexpr std::array<std::string_view, 1> also{"minimax"};

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

/// MiniMax-M2: the experts of Mixtral, routing::presets::minimax_m2.
struct minimax_m2 : glu_family<routing::presets::minimax_m2<float>> {
  static constexpr std::string_view model_type = "minimax_m2";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = mixtral::describe(config, layer);
    for (layer_names& names : result.names)
      names.router.push_back({"router.selection_bias", "e_score_correction_bias", 1, result.experts});
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, {layer.experts, {config.size({"num_experts_per_tok"})}}};
  }
};

/// PhiMoE (Phi-3.5-MoE): the experts of Mixtral, routing::presets::phimoe with ε = router_jitter_noise, two experts.
struct phimoe : glu_family<routing::presets::phimoe<float>> {
  static constexpr std::string_view model_type = "phimoe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = mixtral::describe(config, layer);
    result.names[1].router[0].name = "router.weight";
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    const std::size_t k = config.size_or({"num_experts_per_tok"}, 2);
    require(k == 2, config.name(), ": \"num_experts_per_tok\" is ", k, ", this family's router chooses 2");
    const double epsilon = config.number_or({"router_jitter_noise"}, 0.01);
    return {layer.d_model, layer.experts, {epsilon}, {epsilon}};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
