// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/activation.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// Gemma 4 with experts (enable_moe_block): routing::presets::gemma4, experts of gelu_tanh. The router reads
/// routing_inputs::router_x, the residual stream; x is the output of pre_feedforward_layernorm_2.
struct gemma4 : glu_family<routing::presets::gemma4<float>, hmoe::experts::gelu_tanh> {
  static constexpr std::string_view model_type = "gemma4";
  static constexpr std::array<std::string_view, 1> also{"gemma4_text"};

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    config.require_sparse(config.flag_or({"enable_moe_block"}, false), layer, "enable_moe_block");
    config.require_text({"hidden_activation"}, {"gelu_pytorch_tanh"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_experts"}),
                             .width = config.size({"moe_intermediate_size"})};
    result.names = {{.block = "layers." + std::to_string(layer) + ".",
                     .own = {"router.", "experts."},
                     .router = {{"router.weight", "router.proj.weight", result.experts, result.d_model},
                                {"router.input_scale", "router.scale", 1, result.d_model},
                                {"router.expert_scale", "router.per_expert_scale", 1, result.experts}},
                     .experts = fused_experts()}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {{layer.d_model, layer.experts, config.number_or({"rms_norm_eps"}, 1e-6)},
            config.size({"top_k_experts"}),
            routing::scaled_per_expert<float>{layer.experts}};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
