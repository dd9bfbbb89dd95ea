// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/activation.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/routing/presets.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io::models {

/// Switch Transformer: routing::presets::switch_transformer, two-layer experts with relu. Layers 0, 1, … are those of
/// the encoder; those of the decoder follow. Capacity (expert_capacity) is a matter of dispatch and not read.
struct switch_transformers : mlp_family<routing::presets::switch_transformer<float>, hmoe::experts::relu> {
  static constexpr std::string_view model_type = "switch_transformers";

  [[nodiscard]] static layer_description describe(const model_config& config, std::size_t layer) {
    const std::size_t encoder = config.size({"num_layers"});
    const std::size_t decoder = config.size_or({"num_decoder_layers"}, encoder);
    require(layer < encoder + decoder, config.name(), ": the model has ", encoder, " + ", decoder,
            " layers, there is no layer ", layer);
    const bool decodes = layer >= encoder;
    const std::size_t number = decodes ? layer - encoder : layer;
    const std::size_t step = decodes ? sparse_step(config, "decoder_sparse_step", "num_sparse_decoder_layers", decoder)
                                     : sparse_step(config, "encoder_sparse_step", "num_sparse_encoder_layers", encoder);
    config.require_sparse(step == 1 || (step > 0 && number % step == 1), layer,
                          "encoder_sparse_step, decoder_sparse_step");
    config.require_text({"dense_act_fn"}, {"relu"});
    layer_description result{
        .d_model = config.size({"d_model"}), .experts = config.size({"num_experts"}), .width = config.size({"d_ff"})};
    // In the decoder attention to the encoder stands before it.
    result.names = {{.block = (decodes ? "decoder.block." : "encoder.block.") + std::to_string(number) +
                              (decodes ? ".layer.2.mlp." : ".layer.1.mlp."),
                     .router = {{"router.weight", "router.classifier.weight", result.experts, result.d_model}},
                     .experts = {.lanes = {"experts.expert_*.wi.weight"}, .down = "experts.expert_*.wo.weight"}}};
    return result;
  }
  [[nodiscard]] static router_type make_router(const model_config& config, const layer_description& layer) {
    require(!config.flag_or({"router_bias"}, false), config.name(),
            ": \"router_bias\" is true, this family's router has none");
    return {layer.d_model, layer.experts};
  }

private:
  [[nodiscard]] static std::size_t sparse_step(const model_config& config, std::string_view step,
                                               std::string_view sparse, std::size_t layers) {
    if (config.has({step}))
      return config.size({step}, 0);
    const std::size_t count = config.size_or({sparse}, 3);
    return count == 0 ? layers : layers / count;
  }
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
