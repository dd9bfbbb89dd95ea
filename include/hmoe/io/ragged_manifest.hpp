// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json.hpp>
#include <hmoe/io/json_text.hpp>

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

/// Where the experts of a layer have their sizes from.
struct ragged_reason {
  std::string what = "trained"; ///< trained, pruned, merged, …
  std::string by{};             ///< by which method, or empty
  std::string from{};           ///< the model that it was made of, or empty

  friend bool operator==(const ragged_reason&, const ragged_reason&) = default;
};

/// An expert of a layer, as the manifest describes it.
struct ragged_expert {
  /// The kind of an expert whose tensors are in another file of the same checkpoint.
  static constexpr const char* elsewhere = "elsewhere";

  std::string kind;                   ///< glu.silu, mlp.relu, vector, constant, identity, …
  std::size_t width = 0;              ///< hidden values; 0 where that has no meaning
  std::string format{};               ///< the type of its tensors ("F32"); empty where it has none
  std::vector<std::string> tensors{}; ///< their names behind "experts.ID."

  friend bool operator==(const ragged_expert&, const ragged_expert&) = default;
};

/// A layer: its tensors have the names prefix + "experts.ID.TENSOR" and prefix + TENSOR.
struct ragged_layer {
  std::string prefix;
  std::size_t d_model = 0;
  ragged_reason reason{};
  std::vector<ragged_expert> experts{}; ///< by id
  std::vector<std::string> tensors{};   ///< that belong to no expert: the router's

  friend bool operator==(const ragged_layer&, const ragged_layer&) = default;
  [[nodiscard]] std::vector<std::size_t> widths() const {
    std::vector<std::size_t> result;
    for (const ragged_expert& expert : experts)
      result.push_back(expert.width);
    return result;
  }
};

/// The layers of unequal experts in a safetensors file: what stands in its metadata under "ragged_experts"
/// (docs/checkpoints.md).
struct ragged_manifest {
  static constexpr const char* key = "ragged_experts";
  static constexpr std::uint64_t version = 1;

  std::vector<ragged_layer> layers{};

  /// The layer with that prefix, or null.
  [[nodiscard]] const ragged_layer* find(std::string_view prefix) const noexcept {
    for (const ragged_layer& layer : layers)
      if (layer.prefix == prefix)
        return &layer;
    return nullptr;
  }

  /// As JSON without white space, members in a fixed order.
  [[nodiscard]] std::string to_json() const {
    std::string json = "{\"version\":" + std::to_string(version) + ",\"layers\":[";
    for (const ragged_layer& layer : layers) {
      json += json.back() == '[' ? "{\"prefix\":" : ",{\"prefix\":";
      append_json_string(json, layer.prefix);
      json += ",\"d_model\":" + std::to_string(layer.d_model) + ",\"reason\":{\"what\":";
      append_json_string(json, layer.reason.what);
      json += ",\"by\":";
      append_json_string(json, layer.reason.by);
      json += ",\"from\":";
      append_json_string(json, layer.reason.from);
      json += "},\"experts\":[";
      for (std::size_t e = 0; e < layer.experts.size(); ++e) {
        const ragged_expert& expert = layer.experts[e];
        json += (e == 0 ? "{\"id\":" : ",{\"id\":") + std::to_string(e) + ",\"kind\":";
        append_json_string(json, expert.kind);
        json += ",\"width\":" + std::to_string(expert.width) + ",\"format\":";
        append_json_string(json, expert.format);
        append_names(json, expert.tensors);
      }
      json += ']';
      append_names(json, layer.tensors);
    }
    return json + "]}";
  }

  /// From JSON; members that it does not know are skipped. `name` is what messages call the text. hmoe::error where a
  /// member is missing or of another kind, where ids are not 0 to N − 1 in this order, or where something comes twice.
  [[nodiscard]] static ragged_manifest from_json(std::string_view text, const std::string& name) {
    const json_value json = parse_json(text, name);
    const std::uint64_t given = json.at("version", name).natural(name + ": version");
    require(given == version, name, " is of version ", given, ", this library reads version ", version);
    ragged_manifest manifest;
    std::set<std::string> prefixes;
    for (const json_value& value : json.at("layers", name).elements(name + ": layers")) {
      ragged_layer layer = layer_in(value, name);
      require(prefixes.insert(layer.prefix).second, name, " has two layers with the prefix ", in_quotes(layer.prefix));
      manifest.layers.push_back(std::move(layer));
    }
    return manifest;
  }

private:
  static void append_names(std::string& json, const std::vector<std::string>& names) {
    json += ",\"tensors\":[";
    for (const std::string& name : names) {
      if (json.back() != '[')
        json += ',';
      append_json_string(json, name);
    }
    json += "]}";
  }
  [[nodiscard]] static std::vector<std::string> names_in(const json_value& value, const std::string& where) {
    std::vector<std::string> names;
    for (const json_value& name : value.at("tensors", where).elements(where + ": tensors")) {
      names.push_back(name.text(where + ": tensors"));
    }
    return names;
  }
  [[nodiscard]] static std::size_t size_in(const json_value& value, const char* member, const std::string& where) {
    const std::uint64_t size = value.at(member, where).natural(where + ": " + member);
    // Twice the product of two of them is a size, still.
    require(size <= 0x7fffffff, where, ": ", member, " is ", size, ", more than 2^31 - 1");
    return static_cast<std::size_t>(size);
  }
  [[nodiscard]] static ragged_layer layer_in(const json_value& value, const std::string& name) {
    ragged_layer layer;
    layer.prefix = value.at("prefix", name + ": a layer").text(name + ": the prefix of a layer");
    const std::string where = name + ": layer " + in_quotes(layer.prefix);
    layer.d_model = size_in(value, "d_model", where);
    require(layer.d_model != 0, where, " has d_model 0");
    if (const json_value* reason = value.find("reason"))
      for (const auto& [member, to] : {std::pair{"what", &layer.reason.what}, std::pair{"by", &layer.reason.by},
                                       std::pair{"from", &layer.reason.from}}) {
        static_cast<void>(reason->members(where + ": reason"));
        if (const json_value* text = reason->find(member))
          *to = text->text(where + ": reason");
      }
    for (const json_value& each : value.at("experts", where).elements(where + ": experts")) {
      const std::string expert_where = where + ": expert " + std::to_string(layer.experts.size());
      const std::uint64_t id = each.at("id", expert_where).natural(expert_where + ": id");
      require(id == layer.experts.size(), expert_where, " in the list has the id ", id);
      ragged_expert expert;
      expert.kind = each.at("kind", expert_where).text(expert_where + ": kind");
      expert.width = size_in(each, "width", expert_where);
      expert.tensors = names_in(each, expert_where);
      if (const json_value* format = each.find("format"))
        expert.format = format->text(expert_where + ": format");
      layer.experts.push_back(std::move(expert));
    }
    require(!layer.experts.empty(), where, " has no expert");
    layer.tensors = names_in(value, where);
    return layer;
  }
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
