// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/io/models/norm_topk_prob.hpp>
#include <hmoe/routing/presets.hpp>

#include <array>
#include <string>

namespace hmoe::io::models {

namespace detail {
/// What DeepSeek-V2, -V3 and those built like V3 share: dense layers first, groups of experts, shared experts that are
/// stored as one.
struct deepseek_like {
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_sparse(layer >= config.size_or({"first_k_dense_replace"}, 0), layer, "first_k_dense_replace");
    config.require_sparse(layer % config.size_or({"moe_layer_freq"}, 1, 1) == 0, layer, "moe_layer_freq");
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"n_routed_experts", "num_local_experts", "num_experts"}),
                             .width = config.size({"moe_intermediate_size"})};
    result.shared_width = result.width * config.size_or({"n_shared_experts"}, 0);
    result.names = numbered_or_fused({.block = "layers." + std::to_string(layer) + ".mlp.",
                                      .router = {{"router.weight", "gate.weight", result.experts, result.d_model}},
                                      .experts = numbered_experts("gate_proj", "up_proj", "down_proj"),
                                      .shared = single_expert("shared_experts")});
    return result;
  }
  [[nodiscard]] static routing::always_on shared_of(const layer_description& layer) {
    return {layer.shared_width == 0 ? std::size_t{0} : std::size_t{1}};
  }
};
} // namespace detail

/// DeepSeek-V2, V2-Lite: routing::presets::deepseek_v2. topk_method is greedy or group_limited_greedy. norm_topk_prob
/// is not read, as in transformers; releases have it false.
struct deepseek_v2 : glu_family<routing::presets::deepseek_v2<float>> {
  static constexpr std::string_view model_type = "deepseek_v2";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    return detail::deepseek_like::describe(config, layer);
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    config.require_text({"topk_method"}, {"greedy", "group_limited_greedy"});
    const bool grouped = config.text_or({"topk_method"}, "greedy") == "group_limited_greedy";
    return {layer.d_model,
            layer.experts,
            {.groups = grouped ? config.size({"n_group"}) : 1,
             .kept = grouped ? config.size({"topk_group"}) : 1,
             .k = config.size({"num_experts_per_tok"})},
            {.factor = config.number_or({"routed_scaling_factor"}, 1)},
            detail::deepseek_like::shared_of(layer)};
  }
};

/// DeepSeek-V3, R1, and models built alike: routing::presets::deepseek_v3, where norm_topk_prob says whether weights
/// are renormalised. GLM-4.5 (glm4_moe) and dots.llm1 (dots1) are other names for it.
struct deepseek_v3 : glu_family<routing::presets::deepseek_v3<float, routing::group_mask::excluded, norm_topk_prob>> {
  static constexpr std::string_view model_type = "deepseek_v3";
  static constexpr std::array<std::string_view, 2> also{"glm4_moe", "dots1"};

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = detail::deepseek_like::describe(config, layer);
    for (layer_names& names : result.names)
      names.router.push_back({"router.selection_bias", "gate.e_score_correction_bias", 1, result.experts});
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    const routing::group_limited<> groups{.groups = config.size_or({"n_group"}, 1, 1),
                                          .kept = config.size_or({"topk_group"}, 1, 1),
                                          .k = config.size({"num_experts_per_tok"})};
    return {layer.d_model,
            layer.experts,
            {layer.experts, groups},
            {.factor = config.number_or({"routed_scaling_factor"}, 1),
             .inner = {config.flag_or({"norm_topk_prob"}, true), {.epsilon = 1e-20}}},
            detail::deepseek_like::shared_of(layer)};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
