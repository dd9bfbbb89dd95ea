// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/routing/presets.hpp>

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io::models {

/// DeepSeek-V4: routing::presets::deepseek_v4, experts with the clamped gate of swiglu_limit, a shared expert.
struct deepseek_v4 : glu_family<routing::presets::deepseek_v4<float>, hmoe::experts::clamped<hmoe::experts::silu>> {
  static constexpr std::string_view model_type = "deepseek_v4";

  [[nodiscard]] static bool fits(const model_config& config, std::size_t layer) { return !is_hashed(config, layer); }
  /// Whether the layer's experts hang on the tokens' vocabulary ids.
  [[nodiscard]] static bool is_hashed(const model_config& config, std::size_t layer) {
    const auto kinds = config.texts({"mlp_layer_types"});
    return kinds.empty() ? layer < config.size_or({"num_hash_layers"}, 3)
                         : layer < kinds.size() && kinds[layer] == "hash_moe";
  }
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
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
  [[nodiscard]] static bank_type::gate_type make_gate(const model_config& config) {
    return {.limit = config.number({"swiglu_limit"})};
  }
};

/// The first layers of DeepSeek-V4 ("hash_moe"): routing::presets::deepseek_v4_hash, with the table of the checkpoint
/// (gate.tid2eid). Passes need routing_inputs::token_ids.
struct deepseek_v4_hash
    : glu_family<routing::presets::deepseek_v4_hash<float>, hmoe::experts::clamped<hmoe::experts::silu>> {
  static constexpr std::string_view model_type = "deepseek_v4";

  [[nodiscard]] static bool fits(const model_config& config, std::size_t layer) {
    return deepseek_v4::is_hashed(config, layer);
  }
  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    layer_description result = deepseek_v4::describe(config, layer);
    for (layer_names& names : result.names) {
      names.router.pop_back(); // there is no bias
      names.unused.emplace_back("gate.tid2eid");
    }
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer,
                                               const layer_tensors& tensors) {
    const std::size_t k = config.size({"num_experts_per_tok"});
    const stored_tensor& stored = tensors.at("gate.tid2eid");
    stored.require_shape(config.size({"vocab_size"}), k);
    matrix<double> ids(stored.rows(), k);
    stored.read(ids.view());
    std::vector<index_t> table(ids.size());
    for (std::size_t i = 0; i < table.size(); ++i) {
      const double id = ids.data()[i];
      require(id >= 0 && id < static_cast<double>(layer.experts) && id == std::floor(id), stored.file(), ": tensor ",
              in_quotes(stored.name()), " names expert ", id, " of ", layer.experts);
      table[i] = static_cast<index_t>(id);
    }
    return {layer.d_model, layer.experts, {std::move(table), k}, {.factor = config.number({"routed_scaling_factor"})}};
  }
  [[nodiscard]] static bank_type::gate_type make_gate(const model_config& config) {
    return deepseek_v4::make_gate(config);
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
