// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/io/expert_kinds.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/name_list.hpp>
#include <hmoe/io/ragged_manifest.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

/// Writes layers whose experts differ in size and kind as a safetensors file: every tensor that visit_parameters shows,
/// as a matrix of its own, bit for bit, and a ragged_manifest. Tensors without values are left out.
class ragged_checkpoint_writer {
public:
  /// The layer must outlive this object and stay as it is until write(). hmoe::error where a name comes twice. The
  /// weights of a bank on memory that it may only read cannot be visited: add a copy of such a layer.
  template <class Layer>
  void add(const Layer& layer, const std::string& prefix = "", const ragged_reason& reason = {}) {
    require(manifest_.find(prefix) == nullptr, "a layer with the prefix ", in_quotes(prefix), " was added before");
    ragged_layer entry{.prefix = prefix, .d_model = layer.d_model(), .reason = reason};
    const std::vector<std::string> kinds = kinds_of(layer.experts());
    for (std::size_t e = 0; e < layer.size(); ++e)
      entry.experts.push_back({.kind = kinds[e], .width = layer.experts().width(e)});
    using value_type = typename Layer::value_type;
    layer.visit_parameters([&](const parameter_info& info, matrix_view<const value_type> values) {
      if (values.size() == 0)
        return;
      writer_.add<value_type>(prefix + info.full_name(), values);
      if (info.expert == parameter_info::no_expert) {
        entry.tensors.emplace_back(info.name);
      } else {
        entry.experts[info.expert].tensors.emplace_back(info.name);
        entry.experts[info.expert].format = traits_of(tensor_type_of<value_type>).name;
      }
    });
    manifest_.layers.push_back(std::move(entry));
  }
  template <class Layer> void add(const Layer&&, const std::string& = "", ragged_reason = {}) = delete; ///< see above
  /// A text under "__metadata__", beside the manifest.
  void set_metadata(const std::string& key, std::string text) {
    require(key != ragged_manifest::key, "the metadata under ", in_quotes(key), " is the manifest's");
    writer_.set_metadata(key, std::move(text));
  }
  /// Writes the file as safetensors_writer does.
  void write(const std::string& path) {
    writer_.set_metadata(ragged_manifest::key, manifest_.to_json());
    writer_.write(path);
  }

private:
  safetensors_writer writer_;
  ragged_manifest manifest_;
};

/// The manifest of a file, held against its tensors. hmoe::error where it has none, or where both disagree: tensors
/// that are missing, tensors "experts.…" under a layer's prefix that the manifest does not have, tensors of an expert
/// that are no matrices or of another type than its format.
[[nodiscard]] inline ragged_manifest read_ragged_manifest(const safetensors_file& file) {
  const std::string* text = file.metadata(ragged_manifest::key);
  require(text != nullptr, file.name(), " has no metadata under ", in_quotes(ragged_manifest::key),
          ": it is no checkpoint of unequal experts");
  ragged_manifest manifest = ragged_manifest::from_json(*text, file.name() + ": its manifest");
  std::set<std::string> listed;
  name_list missing, surplus;
  const auto list = [&](const std::string& name, const std::string& format) {
    require(listed.insert(name).second, file.name(), ": its manifest has the tensor ", in_quotes(name), " twice");
    const stored_tensor* tensor = file.find(name);
    if (tensor == nullptr) {
      missing.add(name);
      return;
    }
    require(tensor->shape().size() == 2, file.name(), ": tensor ", in_quotes(name), " is ", tensor->description(),
            ", needed is a matrix");
    require(format.empty() || traits_of(tensor->type()).name == format, file.name(), ": tensor ", in_quotes(name),
            " is ", tensor->description(), ", its expert's format is ", in_quotes(format));
  };
  std::set<std::string_view> prefixes;
  for (const ragged_layer& layer : manifest.layers) {
    prefixes.insert(layer.prefix);
    for (std::size_t e = 0; e < layer.experts.size(); ++e)
      for (const std::string& name : layer.experts[e].tensors)
        list(layer.prefix + parameter_info{.name = name, .expert = e}.full_name(), layer.experts[e].format);
    for (const std::string& name : layer.tensors)
      list(layer.prefix + name, "");
  }
  const std::string_view mark = "experts.";
  for (const stored_tensor& tensor : file.tensors()) {
    const std::string_view name = tensor.name();
    if (listed.contains(tensor.name()))
      continue;
    for (std::size_t at = name.find(mark); at != name.npos; at = name.find(mark, at + 1))
      if (prefixes.contains(name.substr(0, at))) {
        surplus.add(name);
        break;
      }
  }
  require(missing.empty() && surplus.empty(), file.name(), " and its manifest disagree", missing.text("missing"),
          surplus.text("not in the manifest"));
  return manifest;
}

/// Reads the layer with that prefix into `layer`, which has the same experts: bit for bit from its own value_type,
/// exactly from narrower floating-point types. hmoe::error, and nothing is written, where the numbers, widths or kinds
/// of experts differ, where tensors are missing or surplus (all are listed), or of another shape, or would lose bits.
template <class Layer>
void load_ragged_layer(const safetensors_file& file, Layer& layer, std::string_view prefix = "") {
  using value_type = typename Layer::value_type;
  const ragged_manifest manifest = read_ragged_manifest(file);
  const ragged_layer* stored = manifest.find(prefix);
  require(stored != nullptr, file.name(), " has no layer with the prefix ", in_quotes(prefix), "; it has ",
          manifest.layers.size(), " layers");
  const std::string where = file.name() + ": layer " + in_quotes(prefix);
  require(stored->d_model == layer.d_model(), where, " has d_model ", stored->d_model, ", the layer to load ",
          layer.d_model());
  require(stored->experts.size() == layer.size(), where, " has ", stored->experts.size(),
          " experts, the layer to load ", layer.size());
  const std::vector<std::string> kinds = kinds_of(layer.experts());
  std::set<std::string> surplus_names(stored->tensors.begin(), stored->tensors.end());
  for (std::size_t e = 0; e < layer.size(); ++e) {
    const ragged_expert& expert = stored->experts[e];
    require(expert.width == layer.experts().width(e), where, ": expert ", e, " has width ", expert.width,
            ", that of the layer to load ", layer.experts().width(e));
    require(expert.kind == kinds[e], where, ": expert ", e, " is of the kind ", in_quotes(expert.kind),
            ", that of the layer to load ", in_quotes(kinds[e]));
    for (const std::string& name : expert.tensors)
      surplus_names.insert(parameter_info{.name = name, .expert = e}.full_name());
  }
  std::vector<std::pair<const stored_tensor*, matrix_view<value_type>>> copies;
  name_list missing, surplus;
  layer.visit_parameters([&](const parameter_info& info, matrix_view<value_type> to) {
    const std::string name = info.full_name();
    if (surplus_names.erase(name) == 0) {
      if (to.size() != 0)
        missing.add(name);
      return;
    }
    const stored_tensor& tensor = file.at(std::string(prefix) + name);
    tensor.require_shape(to.rows(), to.cols());
    const tensor_type type = tensor.type();
    require(type == tensor_type_of<value_type> || type == tensor_type::f32 || type == tensor_type::f16 ||
                type == tensor_type::bf16 || type == tensor_type::f8_e4m3 || type == tensor_type::f8_e5m2,
            where, ": tensor ", in_quotes(name), " is ", tensor.description(), ", which ",
            traits_of(tensor_type_of<value_type>).name, " does not hold exactly");
    copies.emplace_back(&tensor, to);
  });
  for (const std::string& name : surplus_names)
    surplus.add(name);
  require(missing.empty() && surplus.empty(), where, " does not fit the layer to load", missing.text("missing"),
          surplus.text("not in the layer"));
  for (const auto& [tensor, to] : copies)
    tensor->read(to);
}

} // namespace hmoe::io
