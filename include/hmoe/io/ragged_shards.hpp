// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/expert_kinds.hpp>
#include <hmoe/io/file_writer.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json_text.hpp>
#include <hmoe/io/name_list.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_manifest.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Layers of unequal experts in several files, of which each has some experts, with an index as models are published:
/// each file is written by ragged_checkpoint_writer::add_part, and says of the other experts that they are elsewhere.
namespace hmoe::io {

/// "model-00002-of-00003.safetensors" for file 1 of 3; "model-00002-of-00003.save-1.safetensors" in save 1, which
/// leaves the files of save 0 as they are.
[[nodiscard]] inline std::string shard_name(std::size_t shard, std::size_t shards, std::uint64_t save = 0) {
  const auto digits = [](std::size_t number) {
    const std::string text = std::to_string(number);
    return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
  };
  return "model-" + digits(shard + 1) + "-of-" + digits(shards) + (save == 0 ? "" : ".save-" + std::to_string(save)) +
         ".safetensors";
}

/// Writes model.safetensors.index.json for the files shard_name(0 … shards − 1, shards, save) that are in the folder:
/// after it the checkpoint is complete, and sharded_safetensors{folder} opens it. hmoe::error for a tensor in two
/// files.
inline void write_shard_index(const std::string& folder, std::size_t shards, std::uint64_t save = 0) {
  std::map<std::string, std::size_t> shard_of;
  std::size_t bytes = 0;
  for (std::size_t s = 0; s < shards; ++s) {
    const safetensors_file file(folder + "/" + shard_name(s, shards, save));
    for (const stored_tensor& tensor : file.tensors()) {
      require(shard_of.try_emplace(tensor.name(), s).second, file.name(), ": tensor ", in_quotes(tensor.name()),
              " is in another file, too");
      bytes += tensor.bytes().size();
    }
  }
  std::string json = "{\"metadata\":{\"total_size\":" + std::to_string(bytes) + ",\"";
  json.append(sharded_safetensors::files_key).append("\":");
  // All of them: one whose experts have no tensors stands nowhere else.
  for (std::size_t s = 0; s < shards; ++s) {
    json += s == 0 ? '[' : ',';
    append_json_string(json, shard_name(s, shards, save));
  }
  json += "]},\"weight_map\":{";
  for (const auto& [name, shard] : shard_of) {
    append_json_string(json, name);
    json += ':';
    append_json_string(json, shard_name(shard, shards, save));
    json += ',';
  }
  if (json.back() == ',')
    json.pop_back();
  json += "}}";
  file_writer index(folder + "/model.safetensors.index.json");
  index.write(std::as_bytes(std::span(json)));
  index.commit();
}

/// The paths of the files that the folder's index names, none where it has no index. hmoe::error unless each has the
/// layer with that prefix and no other one, which another index would lose.
[[nodiscard]] inline std::vector<std::string> shards_of_layer(const std::string& folder, std::string_view prefix) {
  std::vector<std::string> paths;
  const std::string index = folder + "/model.safetensors.index.json";
  if (::access(index.c_str(), F_OK) != 0)
    return paths;
  const sharded_safetensors files(index);
  for (const safetensors_file& file : files.files()) {
    const std::string* text = file.metadata(ragged_manifest::key);
    ragged_manifest manifest;
    if (text != nullptr)
      manifest = ragged_manifest::from_json(*text, file.name() + ": its manifest");
    require(manifest.layers.size() == 1 && manifest.find(prefix) != nullptr, folder,
            " has a checkpoint of something else than the layer ", in_quotes(prefix),
            ": save this layer into a folder of its own");
    paths.push_back(file.name());
  }
  return paths;
}

/// The layer with that prefix as its files have it together. hmoe::error where an expert is in no file or in two, or
/// where files differ in d_model, the number of experts, or widths.
[[nodiscard]] inline ragged_layer read_ragged_shards(const sharded_safetensors& files, std::string_view prefix = "") {
  const std::string where = files.name() + ": layer " + in_quotes(prefix);
  ragged_layer whole{.prefix = std::string(prefix)};
  for (const safetensors_file& file : files.files()) {
    const ragged_manifest manifest = read_ragged_manifest(file);
    const ragged_layer* part = manifest.find(prefix);
    if (part == nullptr)
      continue;
    if (whole.experts.empty()) {
      whole.d_model = part->d_model;
      whole.reason = part->reason;
      for (const ragged_expert& expert : part->experts)
        whole.experts.push_back({.kind = ragged_expert::elsewhere, .width = expert.width});
    }
    require(part->d_model == whole.d_model && part->experts.size() == whole.experts.size(), where, " has d_model ",
            part->d_model, " and ", part->experts.size(), " experts in ", file.name(), ", d_model ", whole.d_model,
            " and ", whole.experts.size(), " experts in a file before");
    whole.tensors.insert(whole.tensors.end(), part->tensors.begin(), part->tensors.end());
    for (std::size_t e = 0; e < whole.experts.size(); ++e) {
      require(part->experts[e].width == whole.experts[e].width, where, ": expert ", e, " has width ",
              part->experts[e].width, " in ", file.name(), ", ", whole.experts[e].width, " in a file before");
      if (part->experts[e].kind == ragged_expert::elsewhere)
        continue;
      require(whole.experts[e].kind == ragged_expert::elsewhere, where, ": expert ", e, " is in two files, ",
              file.name(), " is the second");
      whole.experts[e] = part->experts[e];
    }
  }
  require(!whole.experts.empty(), files.name(), " has no layer with the prefix ", in_quotes(prefix));
  for (std::size_t e = 0; e < whole.experts.size(); ++e)
    require(whole.experts[e].kind != ragged_expert::elsewhere, where, ": expert ", e, " is in none of the files");
  return whole;
}

/// As load_ragged_layer, from files that have the layer together. An expert that has width 0 in `layer` and another one
/// by layer.widths(), since it is on other ranks, stays as it is.
template <class Layer>
void load_ragged_shards(const sharded_safetensors& files, Layer& layer, std::string_view prefix = "") {
  const ragged_layer stored = read_ragged_shards(files, prefix);
  const std::string where = files.name() + ": layer " + in_quotes(prefix);
  detail::require_sizes(where, layer, stored.d_model, stored.experts.size());
  const std::vector<std::string> kinds = kinds_of(layer.experts());
  const auto elsewhere = [&](std::size_t e) { return layer.experts().width(e) == 0 && layer.widths()[e] != 0; };
  std::set<std::string> names(stored.tensors.begin(), stored.tensors.end());
  for (std::size_t e = 0; e < layer.size(); ++e)
    if (elsewhere(e))
      require(stored.experts[e].width == layer.widths()[e], where, ": expert ", e, " has width ",
              stored.experts[e].width, ", that of the layer to load ", layer.widths()[e]);
    else
      detail::require_expert(where, e, stored.experts[e], layer.experts().width(e), kinds[e], names);
  detail::read_ragged_tensors(
      where, layer, std::move(names),
      [&](const std::string& name, std::size_t) -> const stored_tensor& {
        return files.at(std::string(prefix) + name);
      },
      elsewhere);
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
