// SPDX-License-Identifier: MIT
#include "open_layer.hpp"

#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/hmoe.hpp>
#include <hmoe/io/models/load_packed_layer.hpp>
#include <hmoe/io/packed_checkpoint.hpp>
#include <hmoe/io/packed_checkpoint_writer.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_experts.hpp>
#include <hmoe/io/read_file.hpp>
#include <hmoe/io/stored_experts.hpp>
#include <hmoe/io/stored_matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include "pruning.hpp"

#include <algorithm>
#include <concepts>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace run_checkpoint {
namespace {

using namespace hmoe;
using backends::simd;

// What a saved layer of a released model remembers of it.
constexpr const char* config_key = "config.json";
constexpr const char* layer_key = "layer";

/// Saves a layer where that is asked for, and hides its type. `config`: the text of config.json.
template <class Experts>
layer_type finished(Experts experts, router_type router, const options& chosen, const std::string& config = "") {
  moe_layer layer{std::move(experts), std::move(router), dispatch::scattered{}};
  if (!chosen.save.empty()) {
    io::packed_checkpoint_writer writer;
    writer.add(layer, chosen.prefix);
    if (!config.empty()) {
      writer.set_metadata(config_key, config);
      writer.set_metadata(layer_key, std::to_string(chosen.layer));
    }
    writer.write(chosen.save);
  }
  return layer_type(std::move(layer));
}

/// Matrices in memory as a file has them, so that packing is compiled for one kind of source.
io::stored_matrix stored(matrix_view<const float> m, bool column = false) {
  require(m.contiguous(), "a matrix of ", m.rows(), " x ", m.cols(), " has rows that lie apart");
  io::stored_tensor tensor("memory", "weights", io::tensor_type::f32, {m.rows(), m.cols()},
                           std::as_bytes(std::span(m.data(), m.size())));
  return column ? io::stored_matrix::column(std::move(tensor)) : io::stored_matrix(std::move(tensor));
}
io::stored_experts<2> stored(const experts::ffn_weights<float, 2>& weights) {
  std::vector<io::stored_expert<2>> result(weights.size());
  for (std::size_t e = 0; e < weights.size(); ++e)
    for (std::size_t m = 0; m < 3; ++m) {
      if (weights.width(e) != 0)
        result[e].matrices[m] = stored(m < 2 ? weights.lane(e, m) : weights.output(e));
      if (weights.has_biases() && (m == 2 || weights.width(e) != 0))
        result[e].biases[m] = stored(m < 2 ? weights.lane_bias(e, m) : weights.output_bias(e), true);
    }
  return {weights.d_model(), std::move(result)};
}

template <class Gate> packed_type pack(const io::stored_experts<2>& source, const Gate& gate, std::string_view format) {
  return all_formats::visit(format, [&]<class Format>() { return packed_type(simd<>::pack<Format>(source, gate)); });
}
/// From the file panel by panel, or by way of the pruned layer as floats.
template <class Gate>
layer_type pack_layer(const io::stored_experts<2>& source, const Gate& gate, router_type router, const options& chosen,
                      const std::string& config = "") {
  if (chosen.prune == 0)
    return finished(expert_set{pack(source, gate, chosen.format)}, std::move(router), chosen, config);
  const auto bank = pruned(source, gate, router, chosen);
  return finished(expert_set{pack(stored(bank.weights()), gate, chosen.format)}, std::move(router), chosen, config);
}

layer_type open_model(const std::string& folder, const options& chosen) {
  const std::vector<std::byte> bytes = io::read_file(folder + "/config.json");
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const io::models::model_config config(text, folder + "/config.json");
  const io::sharded_safetensors file(folder);
  if (chosen.prune == 0)
    return io::models::visit_packed_layer(
        context_type{}, all_formats{}, chosen.format, config, file, chosen.layer, {},
        [&](auto layer) { return finished(std::move(layer.experts()), std::move(layer.router()), chosen, text); });
  return io::models::visit_family(config, chosen.layer, [&]<class Family>() -> layer_type {
    using gate_type = std::remove_cvref_t<decltype(Family::make_gate(config))>;
    constexpr bool possible =
        (std::same_as<gate_type, experts::gated<experts::silu>> || std::same_as<gate_type, experts::gpt_oss_gate>) &&
        std::same_as<io::models::experts_of<Family>, expert_set<typename Family::bank_type>>;
    if constexpr (possible) {
      const auto description = Family::describe(config, chosen.layer);
      const io::models::layer_tensors tensors(file, description, Family::lanes);
      router_type router(io::models::make_router<Family>(config, description, tensors));
      return pack_layer(tensors.experts<2>(), Family::make_gate(config), std::move(router), chosen, text);
    } else {
      fail("--prune: this example prunes layers whose experts are all SwiGLUs or those of gpt-oss; one of the family " +
           std::string(Family::model_type) + " runs without it");
    }
  });
}

/// The router of a file's layer.
router_type top_k(std::size_t d_model, std::size_t experts, const options& chosen, const auto& read) {
  routing::top_k_router<float> router(d_model, experts, chosen.k);
  read(router);
  return router_type(std::move(router));
}
/// f(gate) for the gate that experts of that kind have.
template <class F> auto with_gate(const std::string& file, const std::string& kind, const F& f) {
  if (kind == "glu.gpt_oss")
    return f(experts::gpt_oss_gate{});
  require(kind == "glu.silu", file, ": its experts are of the kind \"", kind,
          "\": this example runs files of glu.silu and glu.gpt_oss");
  return f(experts::gated<experts::silu>{});
}

layer_type open_unequal(const io::safetensors_file& file, const options& chosen) {
  const io::ragged_manifest manifest = io::read_ragged_manifest(file);
  const io::ragged_layer* layer = manifest.find(chosen.prefix);
  require(layer != nullptr, file.name(), " has no layer with the prefix \"", chosen.prefix, "\"");
  const auto kept = std::ranges::find_if(layer->experts, [](const io::ragged_expert& e) { return e.width != 0; });
  require(kept != layer->experts.end(), file.name(), ": all experts of the layer have width 0");
  return with_gate(file.name(), kept->kind, [&](const auto& gate) {
    auto router = top_k(layer->d_model, layer->experts.size(), chosen, [&](auto& plain) {
      plain.visit_parameters([&](const parameter_info& info, matrix_view<float> to) {
        file.at(chosen.prefix + info.full_name()).read(to);
      });
    });
    return pack_layer(io::ragged_experts<2>(file, chosen.prefix, kept->kind), gate, std::move(router), chosen);
  });
}

/// What a packed bank of that gate is on the mapped bytes.
template <std::size_t Lanes, class Gate>
packed_type map_bank(const io::packed_checkpoint& file, const options& chosen, const std::string& format,
                     const Gate& gate) {
  return all_formats::visit(format, [&]<class Format>() {
    using bank = std::conditional_t<Lanes == 2, simd<>::packed_glu<Format, Gate>, simd<>::packed_mlp<Format, Gate>>;
    return packed_type(file.bank<bank>(chosen.prefix, 0, gate));
  });
}
layer_type map_model(const io::packed_checkpoint& file, const io::models::model_config& config, std::size_t number,
                     const options& chosen) {
  const std::string& format = file.layer(chosen.prefix).banks[0].format;
  return io::models::visit_family(config, number, [&]<class Family>() -> layer_type {
    const auto description = Family::describe(config, number);
    if constexpr (requires { Family::make_router(config, description); }) {
      auto router = Family::make_router(config, description);
      file.read_parameters(chosen.prefix, io::packed_checkpoint::no_bank, router);
      auto bank = map_bank<Family::lanes>(file, chosen, format, Family::make_gate(config));
      return finished(Family::make_experts(config, description, std::move(bank)), router_type(std::move(router)),
                      chosen);
    } else {
      fail("the router of this family's layers is made of tensors that a packed file does not have");
    }
  });
}
layer_type open_packed(const io::packed_checkpoint& file, const io::safetensors_file& stored, const options& chosen) {
  if (const std::string* config = stored.metadata(config_key)) {
    const std::string* number = stored.metadata(layer_key);
    return map_model(file, io::models::model_config(*config, stored.name()),
                     number == nullptr ? 0 : std::stoul(*number), chosen);
  }
  const io::packed_layer_entry& layer = file.layer(chosen.prefix);
  require(layer.banks.size() == 1, "the layer has ", layer.banks.size(), " banks, this example maps layers of one");
  auto bank = with_gate(stored.name(), layer.banks[0].kind,
                        [&](const auto& gate) { return map_bank<2>(file, chosen, layer.banks[0].format, gate); });
  auto router = top_k(layer.d_model, layer.banks[0].ids.size(), chosen,
                      [&](auto& plain) { file.read_parameters(chosen.prefix, io::packed_checkpoint::no_bank, plain); });
  return finished(expert_set{std::move(bank)}, std::move(router), chosen);
}

} // namespace

opened_layer open_layer(const options& chosen, const std::string& path) {
  if (std::filesystem::is_directory(path))
    return {open_model(path, chosen), chosen.format, false};
  const io::safetensors_file stored(path);
  if (stored.metadata(io::packed_manifest::key) == nullptr)
    return {open_unequal(stored, chosen), chosen.format, false};
  const io::packed_checkpoint file(path);
  return {open_packed(file, stored, chosen), file.layer(chosen.prefix).banks.at(0).format, true};
}

packed_type dense_expert(std::size_t d_model, std::size_t width, std::string_view format) {
  experts::glu_bank<float, experts::silu> bank(d_model, {width});
  bank.initialize(seed{3}, 0, {});
  return pack(stored(bank.weights()), bank.gate_function(), format);
}

} // namespace run_checkpoint
