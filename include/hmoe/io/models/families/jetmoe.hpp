// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// JetMoE's feed-forward layers: routing::presets::jetmoe. The layer adds a bias to its output; each expert has it as
/// its own, which is the same, since the weights of a token add up to 1.
struct jetmoe : glu_family<routing::presets::jetmoe<float>, hmoe::experts::silu, hmoe::experts::biases::all> {
  static constexpr std::string_view model_type = "jetmoe";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_text({"activation_function"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_local_experts", "num_experts"}),
                             .width = config.size({"intermediate_size"})};
    result.names = {{.block = "layers." + std::to_string(layer) + ".mlp.",
                     .router = {{"router.weight", "router.layer.weight", result.experts, result.d_model}},
                     .experts = {.lanes = {"input_linear.weight"},
                                 .down = "output_linear.weight",
                                 .order = lane_order::stacked,
                                 .down_bias = "bias",
                                 .one_down_bias = true}}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, config.size({"num_experts_per_tok"})};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
