// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/json.hpp>
#include <hmoe/io/memory_map.hpp>
#include <hmoe/io/name_list.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

/// The tensors of a checkpoint: one safetensors file, or several and an index that says which tensor is in which, as
/// models are published (model.safetensors.index.json: {"weight_map": {"tensor": "file", …}}). hmoe::error where a file
/// is damaged, where the index names what is not a file beside it, or where index and files disagree: the message lists
/// tensors that are missing and tensors that the index does not have. {"metadata": {"ragged_files": ["file", …]}} names
/// files of unequal experts (hmoe/io/ragged_shards.hpp), which may be without tensors.
class sharded_safetensors {
public:
  static constexpr const char* files_key = "ragged_files";

  /// `path`: a folder with model.safetensors.index.json or model.safetensors, an index (a name that ends with .json),
  /// or a safetensors file.
  explicit sharded_safetensors(std::string path) : name_(std::move(path)) {
    if (is(name_, S_IFDIR)) {
      const std::string folder = name_ + "/", index = folder + "model.safetensors.index.json";
      const std::string single = folder + "model.safetensors";
      require(is(index, S_IFREG) || is(single, S_IFREG), name_,
              " is a folder without model.safetensors.index.json and without model.safetensors");
      name_ = is(index, S_IFREG) ? index : single;
    }
    if (name_.ends_with(".json"))
      open_shards();
    else
      files_.emplace_back(name_);
    for (const safetensors_file& file : files_)
      for (const stored_tensor& tensor : file.tensors())
        tensors_.push_back(&tensor);
    std::ranges::sort(tensors_, {}, &name_of);
  }

  /// What messages call it: the path of the index or of the file.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Ascending by name.
  [[nodiscard]] std::span<const stored_tensor* const> tensors() const noexcept { return tensors_; }
  [[nodiscard]] std::span<const safetensors_file> files() const noexcept { return files_; }
  /// The tensor of that name, or null.
  [[nodiscard]] const stored_tensor* find(std::string_view name) const noexcept {
    const auto at = std::ranges::lower_bound(tensors_, name, {}, &name_of);
    return at != tensors_.end() && (*at)->name() == name ? *at : nullptr;
  }
  /// The tensor of that name; hmoe::error where there is none.
  [[nodiscard]] const stored_tensor& at(std::string_view name) const {
    const stored_tensor* found = find(name);
    require(found != nullptr, name_, " has no tensor ", in_quotes(name), "; it has ", tensors_.size(), " others");
    return *found;
  }

private:
  static std::string_view name_of(const stored_tensor* tensor) noexcept { return tensor->name(); }
  static bool is(const std::string& path, unsigned kind) {
    struct stat found{};
    return ::stat(path.c_str(), &found) == 0 && (found.st_mode & S_IFMT) == kind;
  }

  void open_shards() {
    const memory_map map(name_);
    const std::string_view text(reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size());
    const json_value index = parse_json(text, name_);
    // A file of the checkpoint, and no other of the machine.
    const auto beside = [&](std::string_view file, const std::string& said) {
      require(!file.empty() && file.find('/') == file.npos && file.find('\0') == file.npos && file != "." &&
                  file != "..",
              name_, ": ", said, in_quotes(file), ", which is no name of a file beside the index");
      return file;
    };
    std::map<std::string_view, std::vector<std::string_view>> wanted; // the tensors of each file
    for (const auto& [tensor, shard] : index.at("weight_map", name_).members(name_ + ": weight_map"))
      wanted[beside(shard.text(name_ + ": the file of tensor " + in_quotes(tensor)),
                    "tensor " + in_quotes(tensor) + " is said to be in ")]
          .push_back(tensor);
    if (const json_value* metadata = index.find("metadata"))
      if (const json_value* files = metadata->find(files_key))
        for (const json_value& file : files->elements(name_ + ": " + files_key))
          wanted[beside(file.text(name_ + ": " + files_key), std::string(files_key) + " has ")];
    const std::string folder = name_.substr(0, name_.rfind('/') + 1);
    name_list missing, surplus;
    for (auto& [shard, tensors] : wanted) {
      const safetensors_file& file = files_.emplace_back(folder + std::string(shard));
      // Both lists ascend by name.
      std::ranges::sort(tensors);
      auto next = tensors.begin();
      for (const stored_tensor& tensor : file.tensors()) {
        for (; next != tensors.end() && *next < tensor.name(); ++next)
          missing.add(*next);
        if (next != tensors.end() && *next == tensor.name())
          ++next;
        else
          surplus.add(tensor.name());
      }
      for (; next != tensors.end(); ++next)
        missing.add(*next);
    }
    require(missing.empty() && surplus.empty(), name_, " and its files disagree", missing.text("missing"),
            surplus.text("not in the index"));
  }

  std::string name_;
  std::vector<safetensors_file> files_;
  std::vector<const stored_tensor*> tensors_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
