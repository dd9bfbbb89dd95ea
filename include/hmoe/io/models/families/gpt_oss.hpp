// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/gating.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// gpt-oss-20b, -120b: routing::presets::gpt_oss, experts with biases and the clamped gate of swiglu_limit and
/// swiglu_alpha. Gate and up are in turns in one tensor; it is transposed in BF16 checkpoints, and not in those of
/// MXFP4 blocks.
struct gpt_oss : glu_family<routing::presets::gpt_oss<float>, hmoe::experts::gpt_oss_gate, hmoe::experts::biases::all> {
  static constexpr std::string_view model_type = "gpt_oss";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    config.require_layer(layer, {"num_hidden_layers"});
    layer_description result{.d_model = config.size({"hidden_size"}),
                             .experts = config.size({"num_local_experts", "num_experts"}),
                             .width = config.size({"intermediate_size"})};
    const layer_names plain{.block = "layers." + std::to_string(layer) + ".mlp.",
                            .router = {{"router.weight", "router.weight", result.experts, result.d_model},
                                       {"router.bias", "router.bias", 1, result.experts}},
                            .experts = {.lanes = {"experts.gate_up_proj"},
                                        .down = "experts.down_proj",
                                        .order = lane_order::interleaved,
                                        .lanes_transposed = true,
                                        .down_transposed = true,
                                        .lane_biases = {"experts.gate_up_proj_bias"},
                                        .down_bias = "experts.down_proj_bias"}};
    layer_names blocks = plain;
    blocks.experts.lanes_transposed = blocks.experts.down_transposed = false;
    blocks.experts.in_blocks = true;
    result.names = {plain, blocks};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    return {layer.d_model, layer.experts, config.size({"num_experts_per_tok", "experts_per_token"})};
  }
  [[nodiscard]] static hmoe::experts::gpt_oss_gate make_gate(const model_config& config) {
    return {.limit = config.number_or({"swiglu_limit"}, 7), .alpha = config.number_or({"swiglu_alpha"}, 1.702)};
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
