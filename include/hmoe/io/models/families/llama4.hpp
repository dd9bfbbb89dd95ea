// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// Llama-4: routing::presets::llama4, a shared expert; gate and up one above the other in a transposed tensor.
struct llama4 : glu_family<routing::presets::llama4<float>> {
  static constexpr std::string_view model_type = "llama4";
  static constexpr std::array<std::string_view, 1> also{"llama4_text"};

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    if (config.has({"moe_layers"})) {
      const auto sparse = config.sizes({"moe_layers"});
      config.require_sparse(std::ranges::find(sparse, layer) != sparse.end(), layer, "moe_layers");
    } else {
      config.require_sparse((layer + 1) % config.size_or({"interleave_moe_layer_step"}, 1, 1) == 0, layer,
                            "interleave_moe_layer_step");
    }
    config.require_text({"hidden_act"}, {"silu", "swish"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_local_experts", "num_experts"}),
                             .width = config.size({"intermediate_size"})};
    result.shared_width = result.width;
    result.names = {{.block = "layers." + std::to_string(layer) + ".feed_forward.",
                     .router = {{"router.weight", "router.weight", result.experts, result.d_model}},
                     .experts = {.lanes = {"experts.gate_up_proj"},
                                 .down = "experts.down_proj",
                                 .order = lane_order::stacked,
                                 .lanes_transposed = true,
                                 .down_transposed = true},
                     .shared = single_expert("shared_expert")}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, config.size({"num_experts_per_tok"})};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
