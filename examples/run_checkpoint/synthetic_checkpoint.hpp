// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

/// Checkpoints of random weights with the shapes of released models' layers.
namespace run_checkpoint {

struct model_shape {
  std::string_view name, model_type;
  std::size_t experts, width, d_model, k;
  std::size_t shared = 0; ///< experts that every token gets, stored as one

  [[nodiscard]] bool is_gpt_oss() const noexcept { return model_type == "gpt_oss"; }
};
std::span<const model_shape> model_shapes();
/// hmoe::error where there is none.
const model_shape& shape_named(std::string_view name);

/// As many of the shape's experts as leave room in memory and on the disk, at most all; hmoe::error where these are
/// fewer than a token gets. `kept`: the part of the neurons that there are.
std::size_t experts_that_fit(const model_shape& shape, double kept, const std::filesystem::path& folder);

/// A model folder with one layer: config.json and the tensors under the names of the hub, in BF16, those of gpt-oss's
/// experts as MXFP4 blocks.
void write_model(const model_shape& shape, std::size_t experts, const std::filesystem::path& folder);

/// A file of unequal experts as pruning leaves them (io/ragged_checkpoint.hpp), in BF16: widths from 0 to the full one,
/// of which the part `kept` is there in the mean.
void write_pruned(const model_shape& shape, std::size_t experts, double kept, const std::string& path);

} // namespace run_checkpoint
