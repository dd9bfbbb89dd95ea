// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace hmoe::io::models {

/// LongCat-Flash: routing::presets::longcat_flash; zero_expert_num experts without weights, which return the token,
/// come last. The bias of the classifier (router_bias) is not read, as in the model's own code.
struct longcat_flash : glu_family<routing::presets::longcat_flash<float>> {
  static constexpr std::string_view model_type = "longcat_flash";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_layers"});
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"n_routed_experts", "num_local_experts"}),
                             .width = config.size({"expert_ffn_hidden_size", "moe_intermediate_size"})};
    const std::size_t all = result.experts + config.size({"zero_expert_num"});
    layer_names names{.block = "layers." + std::to_string(layer) + ".mlp.",
                      .router = {{"router.weight", "router.classifier.weight", all, result.d_model},
                                 {"router.selection_bias", "router.e_score_correction_bias", 1, all}},
                      .experts = numbered_experts("gate_proj", "up_proj", "down_proj"),
                      // transformers has room for gate and up of the experts without weights, too.
                      .unused = {"router.classifier.bias", "experts.*.gate_proj.weight", "experts.*.up_proj.weight"}};
    result.names = numbered_or_fused(names);
    result.names[1].experts.experts_in_lanes = all;
    return result;
  }
  template <class Bank>
  [[nodiscard]] static expert_set<Bank, hmoe::experts::identity_bank<float>>
  make_experts(const model_config& config, const layer_description& layer, Bank bank) {
    return expert_set{std::move(bank),
                      hmoe::experts::identity_bank<float>(layer.d_model, config.size({"zero_expert_num"}))};
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    const std::size_t all = layer.experts + config.size({"zero_expert_num"});
    return {layer.d_model,
            all,
            {all, {config.size({"moe_topk", "num_experts_per_tok"})}},
            {.factor = config.number({"routed_scaling_factor"})}};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
