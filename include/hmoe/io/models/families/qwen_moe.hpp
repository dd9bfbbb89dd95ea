// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/io/models/norm_topk_prob.hpp>
#include <hmoe/routing/presets.hpp>

#include <algorithm>
#include <string>

namespace hmoe::io::models {

namespace detail {
/// What Qwen2-MoE, Qwen3-MoE and OLMoE share: softmax, top k, weights renormalised where norm_topk_prob says so.
struct qwen_like {
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer,
                                                  const std::string& width) {
    config.require_layer(layer, {"num_hidden_layers"});
    const auto dense = config.sizes({"mlp_only_layers"});
    config.require_sparse(std::ranges::find(dense, layer) == dense.end(), layer, "mlp_only_layers");
    config.require_sparse((layer + 1) % config.size_or({"decoder_sparse_step"}, 1, 1) == 0, layer,
                          "decoder_sparse_step");
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_experts", "num_local_experts"}),
                             .width = config.size({width})};
    result.names = numbered_or_fused({.block = "layers." + std::to_string(layer) + ".mlp.",
                                      .router = {{"router.weight", "gate.weight", result.experts, result.d_model}},
                                      .experts = numbered_experts("gate_proj", "up_proj", "down_proj")});
    return result;
  }
  /// The expert that every token gets, times a sigmoid.
  static void add_gated_expert(const model_config& config, layer_description& layer) {
    layer.shared_width = config.size({"shared_expert_intermediate_size"});
    for (layer_names& names : layer.names) {
      names.shared = single_expert("shared_expert");
      names.router.push_back({"router.shared_gate", "shared_expert_gate.weight", 1, layer.d_model});
    }
  }
  template <class Router>
  [[nodiscard]] static Router make_router(const model_config& config, const layer_description& layer, bool normalized) {
    return {layer.d_model, layer.experts, config.size({"num_experts_per_tok"}),
            norm_topk_prob{config.flag_or({"norm_topk_prob"}, normalized)}};
  }
};
} // namespace detail

/// Qwen2-MoE: routing::presets::qwen2_moe, a shared expert times a sigmoid.
struct qwen2_moe : glu_family<routing::presets::qwen2_moe<float, norm_topk_prob>> {
  static constexpr std::string_view model_type = "qwen2_moe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = detail::qwen_like::describe(config, layer, "moe_intermediate_size");
    detail::qwen_like::add_gated_expert(config, result);
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return detail::qwen_like::make_router<router_type>(config, layer, false);
  }
};

/// Qwen3-MoE: routing::presets::qwen3_moe.
struct qwen3_moe : glu_family<routing::presets::qwen3_moe<float, norm_topk_prob>> {
  static constexpr std::string_view model_type = "qwen3_moe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    return detail::qwen_like::describe(config, layer, "moe_intermediate_size");
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return detail::qwen_like::make_router<router_type>(config, layer, false);
  }
};

/// Qwen3-Next: the experts and the router of Qwen2-MoE.
struct qwen3_next : qwen2_moe {
  static constexpr std::string_view model_type = "qwen3_next";

  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return detail::qwen_like::make_router<router_type>(config, layer, true);
  }
};

/// OLMoE-1B-7B: routing::presets::olmoe.
struct olmoe : glu_family<routing::presets::olmoe<float, norm_topk_prob>> {
  static constexpr std::string_view model_type = "olmoe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    return detail::qwen_like::describe(config, layer, "intermediate_size");
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return detail::qwen_like::make_router<router_type>(config, layer, false);
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
