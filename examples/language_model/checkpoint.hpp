// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace language_model {

/// A run between two steps: what it is (config), where it stands (state), and its tensors by name.
///
/// File: "HMOECKPT", then little-endian numbers: version (u32), bytes per scalar (u32), length of the JSON text
/// (u64), number of scalars (u64), FNV-1a checksum of all that follows (u64); then the JSON text and the scalars.
struct checkpoint {
  struct tensor {
    std::string name;
    std::vector<float> values;
  };

  nlohmann::json config;
  nlohmann::json state;
  std::vector<tensor> tensors;

  /// The tensor of that name, which must have that size.
  const std::vector<float>& find(const std::string& name, std::size_t size) const;
};

/// Written beside `path` and renamed when complete: an interrupted save leaves the old checkpoint intact.
void save_checkpoint(const std::filesystem::path& path, const checkpoint& saved);

/// Throws hmoe::error that says what is wrong with the file: no checkpoint, another version, truncated, damaged.
checkpoint load_checkpoint(const std::filesystem::path& path);

/// Throws hmoe::error that names the first settings in which the two configurations differ.
void require_same_config(const nlohmann::json& found, const nlohmann::json& expected, const std::string& where);

} // namespace language_model
