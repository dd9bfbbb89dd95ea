// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/io/models/norm_topk_prob.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

namespace detail {
/// What Nemotron-H's layers share, with and without a latent size: two-layer experts of squared relu.
struct nemotron_like {
  [[nodiscard]] static bool is_latent(const model_config& config) { return config.has({"moe_latent_size"}); }
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    require_moe(config, layer);
    config.require_text({"mlp_hidden_act"}, {"relu2"});
    require(!config.flag_or({"mlp_bias"}, false), config.name(),
            ": \"mlp_bias\" is true, this family's experts have none");
    const std::size_t d = config.size({"hidden_size"});
    layer_description result{.d_model = d,
                             .experts = config.size({"n_routed_experts", "num_local_experts"}),
                             .width = config.size({"moe_intermediate_size"})};
    layer_names numbered{
        .block = "layers." + std::to_string(layer) + ".mixer.",
        .router = {{"router.weight", "gate.weight", result.experts, d},
                   {"router.selection_bias", "gate.e_score_correction_bias", 1, result.experts}},
        .experts = {.lanes = {"experts.*.up_proj.weight"}, .down = "experts.*.down_proj.weight"},
        .shared = {.lanes = {"shared_experts.up_proj.weight"}, .down = "shared_experts.down_proj.weight"}};
    layer_names fused = numbered;
    fused.experts = {.lanes = {"experts.up_proj"}, .down = "experts.down_proj"};
    result.names = {std::move(numbered), std::move(fused)};
    return result;
  }
  template <class Router, class... Shared>
  [[nodiscard]] static Router make_router(const model_config& config, std::size_t experts, Shared... shared) {
    const routing::group_limited<> groups{.groups = config.size_or({"n_group"}, 1, 1),
                                          .kept = config.size_or({"topk_group"}, 1, 1),
                                          .k = config.size({"num_experts_per_tok"})};
    return {config.size({"hidden_size"}),
            experts,
            {experts, groups},
            {.factor = config.number_or({"routed_scaling_factor"}, 1),
             .inner = {config.flag_or({"norm_topk_prob"}, true), {.epsilon = 1e-20}}},
            shared...};
  }

private:
  /// layers_block_type has a word for each layer, hybrid_override_pattern of older releases a letter.
  static void require_moe(const model_config& config, std::size_t layer) {
    const auto words = config.texts({"layers_block_type"});
    const std::string letters = config.text_or({"hybrid_override_pattern"}, "");
    const std::size_t layers = words.empty() ? letters.size() : words.size();
    require(layer < layers, config.name(), ": the model has ", layers, " layers, there is no layer ", layer);
    config.require_sparse(words.empty() ? letters[layer] == 'E' : words[layer] == "moe", layer, "layers_block_type");
  }
};
} // namespace detail

/// Nemotron-H: the router of routing::presets::nemotron_h, where norm_topk_prob says whether weights are renormalised;
/// a shared expert of its own width.
struct nemotron_h : mlp_family<routing::presets::nemotron_h<float, norm_topk_prob>, hmoe::experts::squared_relu> {
  static constexpr std::string_view model_type = "nemotron_h";

  [[nodiscard]] static bool fits(const model_config& config, std::size_t) {
    return !detail::nemotron_like::is_latent(config);
  }
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = detail::nemotron_like::describe(config, layer);
    result.shared_width = config.size({"moe_shared_expert_intermediate_size"});
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return detail::nemotron_like::make_router<router_type>(config, layer.experts, routing::always_on{1});
  }
};

/// Nemotron-H with moe_latent_size: a layer of that d_model, between the projections fc1_latent_proj and
/// fc2_latent_proj, which are the caller's, as the shared expert is. The router reads routing_inputs::router_x [T ×
/// hidden_size], what stands before the projection.
struct nemotron_h_latent
    : mlp_family<routing::presets::nemotron_h_latent<float, norm_topk_prob>, hmoe::experts::squared_relu> {
  static constexpr std::string_view model_type = "nemotron_h";

  [[nodiscard]] static bool fits(const model_config& config, std::size_t) {
    return detail::nemotron_like::is_latent(config);
  }
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = detail::nemotron_like::describe(config, layer);
    result.d_model = config.size({"moe_latent_size"});
    for (layer_names& names : result.names)
      names.own = {"gate.", "experts."};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return detail::nemotron_like::make_router<router_type>(config, layer.experts);
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
