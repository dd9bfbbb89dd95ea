// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>
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
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
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
  require(is_of_family<Family>(config, layer), config.name(), ": layer ", layer, " is of the family ",
          in_quotes(config.family()), ", asked for is a layer of ", in_quotes(Family::model_type));
  const layer_description description = Family::describe(config, layer);
  const layer_tensors tensors(file, description, Family::lanes);
  typename Family::router_type router = [&] {
    if constexpr (requires { Family::make_router(config, description, tensors); })
      return Family::make_router(config, description, tensors);
    else
      return Family::make_router(config, description);
  }();
  tensors.read_router(router);
  typename Family::experts_type experts = Family::make_experts(config, description, options.memory);
  tensors.read_experts(experts.template bank<0>().weights(), Family::lanes);
  return {std::move(experts), std::move(router)};
}
template <model_family Family>
[[nodiscard]] layer_of<Family> load_layer(const std::string& folder, std::size_t layer,
                                          const load_options& options = load_options()) {
  return models::load_layer<Family>(model_config::of_folder(folder), sharded_safetensors(folder), layer, options);
}

namespace detail {
template <class Context, class... Families>
[[nodiscard]] any_layer<Context> load_any(family_list<Families...>, const model_config& config,
                                          const sharded_safetensors& file, std::size_t layer,
                                          const load_options& options) {
  std::optional<any_layer<Context>> result;
  std::string known;
  const std::string& family = config.family();
  const auto try_family = [&]<class Family>(std::type_identity<Family>) {
    if (!std::string_view(known).ends_with(Family::model_type))
      known.append(known.empty() ? "" : ", ").append(Family::model_type);
    if (!result && is_of_family<Family>(config, layer)) {
      auto typed = models::load_layer<Family>(config, file, layer, options);
      // With the router behind an interface layers of one kind of experts are one type, which is compiled once.
      using any_router = routing::any_router<float, Context>;
      using layer_type = moe_layer<typename Family::experts_type, any_router>;
      result.emplace(layer_type(std::move(typed.experts()), any_router(std::move(typed.router()))));
    }
  };
  (try_family(std::type_identity<Families>{}), ...);
  require(result.has_value(), config.name(), ": no family is known for the model_type ", in_quotes(family),
          "; known are ", known);
  return std::move(*result);
}
} // namespace detail

/// The same for a family that only config.json names; the layer runs in contexts of ctx's type:
///   any_layer layer = load_layer(ctx, "path/to/model", 3);
template <execution_context Context>
[[nodiscard]] any_layer<Context> load_layer(const Context&, const model_config& config, const sharded_safetensors& file,
                                            std::size_t layer, const load_options& options = load_options()) {
  return detail::load_any<Context>(families{}, config, file, layer, options);
}
template <execution_context Context>
[[nodiscard]] any_layer<Context> load_layer(const Context& ctx, const std::string& folder, std::size_t layer,
                                            const load_options& options = load_options()) {
  return models::load_layer(ctx, model_config::of_folder(folder), sharded_safetensors(folder), layer, options);
}

} // namespace hmoe::io::models
