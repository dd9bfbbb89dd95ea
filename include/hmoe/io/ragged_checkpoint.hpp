// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

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

/// What of a layer goes into a file, where several files have it together.
struct ragged_part {
  std::vector<bool> experts; ///< [N]
  bool rest = true;          ///< the tensors that belong to no expert
};

/// Writes layers whose experts differ in size and kind as a safetensors file: every tensor that visit_parameters shows,
/// as a matrix of its own, bit for bit, and a ragged_manifest. Tensors without values are left out.
class ragged_checkpoint_writer {
public:
  /// The layer must outlive this object and stay as it is until write(). hmoe::error where a name comes twice. The
  /// weights of a bank on memory that it may only read cannot be visited: add a copy of such a layer.
  template <class Layer>
  void add(const Layer& layer, const std::string& prefix = "", const ragged_reason& reason = {}) {
    add_part(layer, {std::vector<bool>(layer.size(), true), true}, prefix, reason);
  }
  /// Some tensors of a layer, whose others are in other files (hmoe/io/ragged_shards.hpp).
  template <class Layer>
  void add_part(const Layer& layer, const ragged_part& part, const std::string& prefix = "",
                const ragged_reason& reason = {}) {
    require(manifest_.find(prefix) == nullptr, "a layer with the prefix ", in_quotes(prefix), " was added before");
    require(part.experts.size() == layer.size(), "a part of a layer of ", layer.size(), " experts says of ",
            part.experts.size(), " whether it has them");
    ragged_layer entry{.prefix = prefix, .d_model = layer.d_model(), .reason = reason};
    const std::vector<std::string> kinds = kinds_of(layer.experts());
    for (std::size_t e = 0; e < layer.size(); ++e)
      entry.experts.push_back(part.experts[e]
                                  ? ragged_expert{.kind = kinds[e], .width = layer.experts().width(e)}
                                  : ragged_expert{.kind = ragged_expert::elsewhere, .width = layer.widths()[e]});
    using value_type = typename Layer::value_type;
    layer.visit_parameters([&](const parameter_info& info, matrix_view<const value_type> values) {
      const bool of_expert = info.expert != parameter_info::no_expert;
      if (values.size() == 0 || !(of_expert ? part.experts[info.expert] : part.rest))
        return;
      writer_.add<value_type>(prefix + info.full_name(), values);
      if (of_expert) {
        entry.experts[info.expert].tensors.emplace_back(info.name);
        entry.experts[info.expert].format = traits_of(tensor_type_of<value_type>).name;
      } else {
        entry.tensors.emplace_back(info.name);
      }
    });
    manifest_.layers.push_back(std::move(entry));
  }
  /// A tensor that is no layer's: the state of an optimiser, say.
  template <tensor_value T> void add_tensor(const std::string& name, matrix_view<const T> values) {
    writer_.add<T>(name, values);
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

namespace detail {

/// Reads the tensors of a layer: at(name, expert) for each of `names`, which are the layer's without its prefix;
/// those of skipped(expert) stay as they are. Writes nothing before all has been checked.
template <class Layer, class At, class Skipped>
void read_ragged_tensors(const std::string& where, Layer& layer, std::set<std::string> names, const At& at,
                         const Skipped& skipped) {
  using value_type = typename Layer::value_type;
  std::vector<std::pair<const stored_tensor*, matrix_view<value_type>>> copies;
  name_list missing, surplus;
  layer.visit_parameters([&](const parameter_info& info, matrix_view<value_type> to) {
    if (info.expert != parameter_info::no_expert && skipped(info.expert))
      return;
    const std::string name = info.full_name();
    if (names.erase(name) == 0) {
      if (to.size() != 0)
        missing.add(name);
      return;
    }
    const stored_tensor& tensor = at(name, info.expert);
    tensor.require_shape(to.rows(), to.cols());
    const tensor_type type = tensor.type();
    require(type == tensor_type_of<value_type> || type == tensor_type::f32 || type == tensor_type::f16 ||
                type == tensor_type::bf16 || type == tensor_type::f8_e4m3 || type == tensor_type::f8_e5m2,
            where, ": tensor ", in_quotes(name), " is ", tensor.description(), ", which ",
            traits_of(tensor_type_of<value_type>).name, " does not hold exactly");
    copies.emplace_back(&tensor, to);
  });
  for (const std::string& name : names)
    surplus.add(name);
  require(missing.empty() && surplus.empty(), where, " does not fit the layer to load", missing.text("missing"),
          surplus.text("not in the layer"));
  for (const auto& [tensor, to] : copies)
    tensor->read(to);
}
/// hmoe::error unless the layer to load has this d_model and so many experts.
template <class Layer>
void require_sizes(const std::string& where, const Layer& layer, std::size_t d_model, std::size_t experts) {
  require(d_model == layer.d_model(), where, " has d_model ", d_model, ", the layer to load ", layer.d_model());
  require(experts == layer.size(), where, " has ", experts, " experts, the layer to load ", layer.size());
}
/// hmoe::error unless the layer to load has this expert in this form; adds the names of its tensors.
inline void require_expert(const std::string& where, std::size_t e, const ragged_expert& expert, std::size_t width,
                           const std::string& kind, std::set<std::string>& names) {
  require(expert.width == width, where, ": expert ", e, " has width ", expert.width, ", that of the layer to load ",
          width);
  require(expert.kind == kind, where, ": expert ", e, " is of the kind ", in_quotes(expert.kind),
          ", that of the layer to load ", in_quotes(kind));
  for (const std::string& name : expert.tensors)
    names.insert(parameter_info{.name = name, .expert = e}.full_name());
}

} // namespace detail

/// Reads the layer with that prefix into `layer`, which has the same experts: bit for bit from its own value_type,
/// exactly from narrower floating-point types. hmoe::error, and nothing is written, where the numbers, widths or kinds
/// of experts differ, where tensors are missing or surplus (all are listed), or of another shape, or would lose bits.
template <class Layer>
void load_ragged_layer(const safetensors_file& file, Layer& layer, std::string_view prefix = "") {
  const ragged_manifest manifest = read_ragged_manifest(file);
  const ragged_layer* stored = manifest.find(prefix);
  require(stored != nullptr, file.name(), " has no layer with the prefix ", in_quotes(prefix), "; it has ",
          manifest.layers.size(), " layers");
  const std::string where = file.name() + ": layer " + in_quotes(prefix);
  detail::require_sizes(where, layer, stored->d_model, stored->experts.size());
  const std::vector<std::string> kinds = kinds_of(layer.experts());
  std::set<std::string> names(stored->tensors.begin(), stored->tensors.end());
  for (std::size_t e = 0; e < layer.size(); ++e)
    detail::require_expert(where, e, stored->experts[e], layer.experts().width(e), kinds[e], names);
  detail::read_ragged_tensors(
      where, layer, std::move(names),
      [&](const std::string& name, std::size_t) -> const stored_tensor& { return file.at(std::string(prefix) + name); },
      [](std::size_t) { return false; });
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
