// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/execution/context.hpp>
#include <hmoe/io/any_packed_bank.hpp>
#include <hmoe/io/format_list.hpp>
#include <hmoe/io/models/families.hpp>
#include <hmoe/io/models/family.hpp>
#include <hmoe/io/models/layer_tensors.hpp>
#include <hmoe/io/models/load_layer.hpp>
#include <hmoe/io/models/model_config.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/layer/any_layer.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>

#include <cstddef>
#include <memory_resource>
#include <string>
#include <string_view>
#include <utility>

/// Layers of released models straight into packed weights: expert by expert and panel by panel from the mapped file.
/// Beside the packed experts there are never more floats than those of one panel of each of their two projections, and
/// the router. MXFP4 blocks go into formats::mxfp4 without a change of value, and FP8 with factors for squares of 128 ×
/// 128 into formats::fp8; other types and formats are read as floats panel by panel.
namespace hmoe::io::models {

namespace detail {
/// What the context's backend packs of such experts.
template <class Format, execution_context Context> struct packs_as {
  template <class Source, class Gate>
  [[nodiscard]] auto operator()(const Source& source, Gate gate, std::pmr::memory_resource* memory) const {
    using backend = typename Context::backend_type;
    constexpr bool packs = requires { backend::template pack<Format>(source, gate, memory); };
    static_assert(packs, "hmoe::io::models::load_packed_layer: the backend of the context packs no weights, or not in "
                         "this Format: give a context with backends::simd and one of backends::formats");
    if constexpr (packs)
      return backend::template pack<Format>(source, std::move(gate), memory);
  }
};
/// f(set of experts, router) of a layer whose experts with weights are pack(source, gate, memory).
template <model_family Family, class Pack, class F>
[[nodiscard]] auto with_packed_parts(const model_config& config, const sharded_safetensors& file, std::size_t layer,
                                     const load_options& options, const Pack& pack, const F& f) {
  require_family<Family>(config, layer);
  const layer_description description = Family::describe(config, layer);
  const layer_tensors tensors(file, description, Family::lanes);
  auto router = models::make_router<Family>(config, description, tensors);
  auto bank = pack(tensors.experts<Family::lanes>(), Family::make_gate(config), options.memory);
  return f(Family::make_experts(config, description, std::move(bank)), std::move(router));
}
} // namespace detail

/// MoE layer `layer` of a checkpoint of a family that is known at compile time, packed for contexts like ctx in the
/// Format given:
///   load_packed_layer<backends::formats::q4, io::models::mixtral>(cpu, "path/to/model", 3)
/// It is the moe_layer that backend.pack<Format>(load_layer<Family>(…)) returns, without the floats of that layer.
/// Errors are those of load_layer, and hmoe::error where a weight is one that the format does not hold; options.memory
/// is where the packed weights go.
template <class Format, model_family Family, execution_context Context>
[[nodiscard]] auto load_packed_layer(const Context&, const model_config& config, const sharded_safetensors& file,
                                     std::size_t layer, const load_options& options = load_options()) {
  return detail::with_packed_parts<Family>(
      config, file, layer, options, detail::packs_as<Format, Context>{},
      [](auto experts, auto router) { return moe_layer{std::move(experts), std::move(router)}; });
}
template <class Format, model_family Family, execution_context Context>
[[nodiscard]] auto load_packed_layer(const Context& ctx, const std::string& folder, std::size_t layer,
                                     const load_options& options = load_options()) {
  return models::load_packed_layer<Format, Family>(ctx, model_config::of_folder(folder), sharded_safetensors(folder),
                                                   layer, options);
}

/// take(layer) of a layer whose family only config.json names, in the format of that name. `take` gets a moe_layer
/// whose first bank is an any_packed_bank<Context> and whose router an any_router<float, Context>, and returns the same
/// type for all of them.
template <execution_context Context, class... Formats, class Take>
[[nodiscard]] auto visit_packed_layer(const Context&, format_list<Formats...> formats, std::string_view format,
                                      const model_config& config, const sharded_safetensors& file, std::size_t layer,
                                      const load_options& options, const Take& take) {
  const auto pack = [&](const auto& source, const auto& gate, std::pmr::memory_resource* memory) {
    return formats.visit(format, [&]<class Format>() {
      return any_packed_bank<Context>(detail::packs_as<Format, Context>{}(source, gate, memory));
    });
  };
  return models::visit_family(config, layer, [&]<class Family>() {
    return detail::with_packed_parts<Family>(config, file, layer, options, pack, [&](auto experts, auto router) {
      return take(moe_layer{std::move(experts), routing::any_router<float, Context>(std::move(router))});
    });
  });
}

/// The same as an any_layer, in a format that is known at compile time, or by its name:
///   any_layer layer = load_packed_layer<formats::q4>(cpu, "path/to/model", 3);
///   any_layer layer = load_packed_layer(cpu, io::format_list<formats::q8, formats::q4>{}, "q4", "path/to/model", 3);
template <execution_context Context, class... Formats>
[[nodiscard]] any_layer<Context> load_packed_layer(const Context& ctx, format_list<Formats...> formats,
                                                   std::string_view format, const model_config& config,
                                                   const sharded_safetensors& file, std::size_t layer,
                                                   const load_options& options = load_options()) {
  return models::visit_packed_layer(ctx, formats, format, config, file, layer, options,
                                    [](auto typed) { return any_layer<Context>(std::move(typed)); });
}
template <execution_context Context, class... Formats>
[[nodiscard]] any_layer<Context> load_packed_layer(const Context& ctx, format_list<Formats...> formats,
                                                   std::string_view format, const std::string& folder,
                                                   std::size_t layer, const load_options& options = load_options()) {
  return models::load_packed_layer(ctx, formats, format, model_config::of_folder(folder), sharded_safetensors(folder),
                                   layer, options);
}
template <class Format, execution_context Context>
[[nodiscard]] any_layer<Context> load_packed_layer(const Context& ctx, const std::string& folder, std::size_t layer,
                                                   const load_options& options = load_options()) {
  return models::load_packed_layer(ctx, format_list<Format>{}, Format::name, folder, layer, options);
}
template <class Format, execution_context Context>
[[nodiscard]] any_layer<Context> load_packed_layer(const Context& ctx, const model_config& config,
                                                   const sharded_safetensors& file, std::size_t layer,
                                                   const load_options& options = load_options()) {
  return models::load_packed_layer(ctx, format_list<Format>{}, Format::name, config, file, layer, options);
}

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
