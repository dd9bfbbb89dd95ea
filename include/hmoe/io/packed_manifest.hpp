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

/// A bank of a layer of packed experts. Where it is packed its values are tensors of the file, "banks.B.panels" and
/// with biases "banks.B.in_bias" and "banks.B.out_bias"; where it is not `format` is empty, and its parameters are
/// tensors "experts.ID.NAME".
struct packed_bank_entry {
  std::string kind;             ///< glu.silu, mlp.relu, constant, …
  std::vector<std::size_t> ids; ///< of its experts, in the layer
  std::string format{};         ///< how weights are stored: f32, bf16, q8, …
  std::size_t lanes = 0, panel_columns = 0;
  std::vector<std::size_t> widths{};
  bool biases = false;

  friend bool operator==(const packed_bank_entry&, const packed_bank_entry&) = default;
};

/// A tensor of a layer by its name behind the prefix.
struct packed_tensor_entry {
  std::string name;
  std::uint64_t checksum = 0; ///< word_checksum of its bytes

  friend bool operator==(const packed_tensor_entry&, const packed_tensor_entry&) = default;
};

struct packed_layer_entry {
  std::string prefix;
  std::size_t d_model = 0;
  std::vector<packed_bank_entry> banks{};
  std::vector<packed_tensor_entry> tensors{};

  friend bool operator==(const packed_layer_entry&, const packed_layer_entry&) = default;
  /// The tensor of that name, or null.
  [[nodiscard]] const packed_tensor_entry* find(std::string_view name) const noexcept {
    for (const packed_tensor_entry& tensor : tensors)
      if (tensor.name == name)
        return &tensor;
    return nullptr;
  }
};

/// The layers of packed experts in a safetensors file: what stands in its metadata under "packed_experts"
/// (docs/checkpoints.md).
struct packed_manifest {
  static constexpr const char* key = "packed_experts";
  static constexpr std::uint64_t version = 1;

  std::vector<packed_layer_entry> layers{};

  /// The layer with that prefix, or null.
  [[nodiscard]] const packed_layer_entry* find(std::string_view prefix) const noexcept {
    for (const packed_layer_entry& layer : layers)
      if (layer.prefix == prefix)
        return &layer;
    return nullptr;
  }

  /// As JSON without white space, members in a fixed order.
  [[nodiscard]] std::string to_json() const {
    std::string json = "{\"version\":" + std::to_string(version) + ",\"layers\":[";
    for (const packed_layer_entry& layer : layers) {
      json += json.back() == '[' ? "{\"prefix\":" : ",{\"prefix\":";
      append_json_string(json, layer.prefix);
      json += ",\"d_model\":" + std::to_string(layer.d_model) + ",\"banks\":[";
      for (const packed_bank_entry& bank : layer.banks) {
        json += json.back() == '[' ? "{\"kind\":" : ",{\"kind\":";
        append_json_string(json, bank.kind);
        append_sizes(json, ",\"ids\":[", bank.ids);
        json += ",\"format\":";
        append_json_string(json, bank.format);
        json += ",\"lanes\":" + std::to_string(bank.lanes) + ",\"panel_columns\":" + std::to_string(bank.panel_columns);
        append_sizes(json, ",\"widths\":[", bank.widths);
        json += bank.biases ? ",\"biases\":true}" : ",\"biases\":false}";
      }
      json += "],\"tensors\":[";
      for (const packed_tensor_entry& tensor : layer.tensors) {
        json += json.back() == '[' ? "{\"name\":" : ",{\"name\":";
        append_json_string(json, tensor.name);
        json += ",\"checksum\":" + std::to_string(tensor.checksum) + '}';
      }
      json += "]}";
    }
    return json + "]}";
  }

  /// From JSON; members that it does not know are skipped. `name` is what messages call the text. hmoe::error where a
  /// member is missing or of another kind, where sizes are beyond 2^31 − 1, or where something comes twice.
  [[nodiscard]] static packed_manifest from_json(std::string_view text, const std::string& name) {
    const json_value json = parse_json(text, name);
    const std::uint64_t given = json.at("version", name).natural(name + ": version");
    require(given == version, name, " is of version ", given, ", this library reads version ", version);
    packed_manifest manifest;
    std::set<std::string> prefixes;
    for (const json_value& value : json.at("layers", name).elements(name + ": layers")) {
      packed_layer_entry layer = layer_in(value, name);
      require(prefixes.insert(layer.prefix).second, name, " has two layers with the prefix ", in_quotes(layer.prefix));
      manifest.layers.push_back(std::move(layer));
    }
    return manifest;
  }

private:
  static void append_sizes(std::string& json, const char* begin, const std::vector<std::size_t>& sizes) {
    json += begin;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      json.append(i == 0 ? "" : ",").append(std::to_string(sizes[i]));
    json += ']';
  }
  [[nodiscard]] static std::size_t size_of(const json_value& value, const std::string& where) {
    const std::uint64_t size = value.natural(where);
    require(size <= 0x7fffffff, where, " is ", size, ", more than 2^31 - 1");
    return static_cast<std::size_t>(size);
  }
  [[nodiscard]] static std::vector<std::size_t> sizes_in(const json_value& value, const char* member,
                                                         const std::string& where) {
    std::vector<std::size_t> sizes;
    for (const json_value& size : value.at(member, where).elements(where + ": " + member))
      sizes.push_back(size_of(size, where + ": " + member));
    return sizes;
  }
  [[nodiscard]] static packed_layer_entry layer_in(const json_value& value, const std::string& name) {
    packed_layer_entry layer;
    layer.prefix = value.at("prefix", name + ": a layer").text(name + ": the prefix of a layer");
    const std::string where = name + ": layer " + in_quotes(layer.prefix);
    layer.d_model = size_of(value.at("d_model", where), where + ": d_model");
    for (const json_value& each : value.at("banks", where).elements(where + ": banks")) {
      const std::string bank_where = where + ": bank " + std::to_string(layer.banks.size());
      packed_bank_entry bank;
      bank.kind = each.at("kind", bank_where).text(bank_where + ": kind");
      bank.ids = sizes_in(each, "ids", bank_where);
      bank.format = each.at("format", bank_where).text(bank_where + ": format");
      bank.lanes = size_of(each.at("lanes", bank_where), bank_where + ": lanes");
      bank.panel_columns = size_of(each.at("panel_columns", bank_where), bank_where + ": panel_columns");
      bank.widths = sizes_in(each, "widths", bank_where);
      bank.biases = each.at("biases", bank_where).boolean(bank_where + ": biases");
      require(bank.format.empty() || bank.widths.size() == bank.ids.size(), bank_where, " has ", bank.widths.size(),
              " widths and ", bank.ids.size(), " ids");
      layer.banks.push_back(std::move(bank));
    }
    std::set<std::string> names;
    for (const json_value& each : value.at("tensors", where).elements(where + ": tensors")) {
      packed_tensor_entry tensor;
      tensor.name = each.at("name", where + ": a tensor").text(where + ": the name of a tensor");
      tensor.checksum =
          each.at("checksum", where + ": a tensor").natural(where + ": the checksum of " + in_quotes(tensor.name));
      require(names.insert(tensor.name).second, where, " has the tensor ", in_quotes(tensor.name), " twice");
      layer.tensors.push_back(std::move(tensor));
    }
    return layer;
  }
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
