// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/families.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/io/models/layer_tensors.hpp>
#include <hmoe/io/models/model_config.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/layer/any_layer.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>

#include <cstddef>
#include <memory_resource>
#include <string>
#include <utility>

namespace hmoe::io::models {

struct load_options {
  /// Where the weights of the experts go. It must outlive the layer.
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
};

/// MoE layer `layer` of a checkpoint, of a family that is known at compile time:
///   load_layer<io::models::mixtral>("path/to/model", 3)
/// `folder` has config.json, and model.safetensors or its shards. The layer is a moe_layer with the family's router, of
/// float, whatever the file has. hmoe::error with file, name and numbers, before memory for the layer is asked for,
/// where the model is of another family, the layer has no experts, or config.json and the tensors disagree: tensors
/// that are missing and tensors of the layer that are not known are listed. Each tensor goes straight from the mapped
/// file to its place, so that the layer is in memory once.
template <model_family Family>
[[nodiscard]] layer_of<Family> load_layer(const model_config& config, const sharded_safetensors& file,
                                          std::size_t layer, const load_options& options = load_options()) {
  require_family<Family>(config, layer);
  const layer_description description = Family::describe(config, layer);
  const layer_tensors tensors(file, description, Family::lanes);
  auto router = models::make_router<Family>(config, description, tensors);
  auto bank = models::make_bank<Family>(config, description, options.memory);
  tensors.read_experts(bank.weights(), Family::lanes);
  return {Family::make_experts(config, description, std::move(bank)), std::move(router)};
}
template <model_family Family>
[[nodiscard]] layer_of<Family> load_layer(const std::string& folder, std::size_t layer,
                                          const load_options& options = load_options()) {
  return models::load_layer<Family>(model_config::of_folder(folder), sharded_safetensors(folder), layer, options);
}

/// The same for a family that only config.json names; the layer runs in contexts of ctx's type:
///   any_layer layer = load_layer(ctx, "path/to/model", 3);
template <execution_context Context>
[[nodiscard]] any_layer<Context> load_layer(const Context&, const model_config& config, const sharded_safetensors& file,
                                            std::size_t layer, const load_options& options = load_options()) {
  return models::visit_family(config, layer, [&]<class Family>() {
    auto typed = models::load_layer<Family>(config, file, layer, options);
    // With the router behind an interface layers of one kind of experts are one type, which is compiled once.
    using any_router = routing::any_router<float, Context>;
    return any_layer<Context>(
        moe_layer<experts_of<Family>, any_router>(std::move(typed.experts()), any_router(std::move(typed.router()))));
  });
}
template <execution_context Context>
[[nodiscard]] any_layer<Context> load_layer(const Context& ctx, const std::string& folder, std::size_t layer,
                                            const load_options& options = load_options()) {
  return models::load_layer(ctx, model_config::of_folder(folder), sharded_safetensors(folder), layer, options);
}

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
