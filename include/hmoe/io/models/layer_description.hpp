// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/io/models/tensor_part.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io::models {

/// How a file holds the matrices of an expert that read a token (the lanes; of a GLU gate and up): each in a tensor of
/// its own, or in one tensor, one above the other, or in turns, row by row.
enum class lane_order { apart, stacked, interleaved };

/// What the tensors of feed-forward experts are called behind the prefix of their block. A `*` stands for the number of
/// the expert, which then has tensors of its own; without it, one tensor holds all experts along its first dimension.
struct expert_names {
  std::vector<std::string> lanes{}; ///< [h × d] each, or one name for all of them: [2h × d]
  std::string down{};               ///< [d × h]
  lane_order order = lane_order::apart;
  bool lanes_transposed = false;          ///< [d × h], for x W
  bool down_transposed = false;           ///< [h × d]
  bool in_blocks = false;                 ///< weights are NAME_blocks with NAME_scales (MXFP4)
  std::vector<std::string> lane_biases{}; ///< as `lanes`, [h] each
  std::string down_bias{};                ///< [d]
  bool one_down_bias = false;             ///< all experts have the same, a tensor [d]
  bool flat = false;                      ///< one tensor of all experts is [E·h × d], not [E × h × d]
  std::size_t experts_in_lanes = 0;       ///< how many that tensor has room for, if more than have weights
};

/// A tensor of the router: our parameter, what the file calls it behind the prefix of the block, and its shape, where
/// [n] is a matrix of one row.
struct router_tensor {
  std::string_view parameter;
  std::string name;
  std::size_t rows = 1, cols = 1;
};

/// The names of one release of a family.
struct layer_names {
  std::string block;                ///< "layers.3.mlp.": begins the names
  std::vector<std::string> own{""}; ///< behind the block: what begins with one of these belongs to the layer
  std::vector<router_tensor> router{};
  expert_names experts{};
  expert_names shared{};             ///< of the shared expert, where there is one
  std::vector<std::string> unused{}; ///< own tensors that are not the layer's, with `*` for any number
};

/// One MoE layer of a model: its sizes, and its tensors by name, those of the hub first.
struct layer_description {
  std::size_t d_model = 0;
  std::size_t experts = 0;      ///< that compete for tokens, without those that have no weights
  std::size_t width = 0;        ///< of each of these
  std::size_t number = 0;       ///< of the layer; for families whose values differ from layer to layer
  std::size_t shared_width = 0; ///< of the expert that every token gets, stored as one; 0: there is none
  std::vector<layer_names> names{};

  /// The widths of all experts with weights, the shared one last.
  [[nodiscard]] std::vector<std::size_t> widths() const {
    std::vector<std::size_t> result(experts, width);
    if (shared_width != 0)
      result.push_back(shared_width);
    return result;
  }
};

/// One tensor to each matrix of each expert, as checkpoints on the hub have them, and the names of transformers 5,
/// which holds the same model in fused tensors.
[[nodiscard]] inline expert_names numbered_experts(const std::string& gate, const std::string& up,
                                                   const std::string& down) {
  return {.lanes = {"experts.*." + gate + ".weight", "experts.*." + up + ".weight"},
          .down = "experts.*." + down + ".weight"};
}
[[nodiscard]] inline expert_names fused_experts() {
  return {.lanes = {"experts.gate_up_proj"}, .down = "experts.down_proj", .order = lane_order::stacked};
}
/// An expert that stands alone: NAME.gate_proj.weight, …
[[nodiscard]] inline expert_names single_expert(const std::string& name) {
  return {.lanes = {name + ".gate_proj.weight", name + ".up_proj.weight"}, .down = name + ".down_proj.weight"};
}
/// These layers with the tensors of the experts either numbered or fused, under one block and with one router.
[[nodiscard]] inline std::vector<layer_names> numbered_or_fused(layer_names numbered) {
  layer_names fused = numbered;
  fused.experts = fused_experts();
  return {std::move(numbered), std::move(fused)};
}

namespace detail {
[[nodiscard]] inline std::string with_number(const std::string& name, std::size_t e) {
  const std::size_t at = name.find('*');
  return at == name.npos ? name : name.substr(0, at) + std::to_string(e) + name.substr(at + 1);
}
[[nodiscard]] inline bool is_numbered(const std::string& name) { return name.find('*') != name.npos; }

/// Where the tensors of expert e of `count` are: its lanes, its output matrix, the biases of its lanes, that of its
/// output. `single`: the names are of one expert.
[[nodiscard]] inline std::vector<tensor_part> parts_of(const expert_names& names, std::size_t lanes, std::size_t e,
                                                       std::size_t count, bool single, std::size_t h, std::size_t d) {
  std::vector<tensor_part> result;
  const auto add = [&](const std::string& name, std::vector<std::size_t> shape, bool transposed) -> tensor_part& {
    tensor_part part{.name = with_number(name, e), .shape = std::move(shape), .transposed = transposed};
    if (!single && !is_numbered(name)) {
      const bool down = name == names.down || name == names.down_bias;
      part.part = e;
      part.parts = down || names.experts_in_lanes == 0 ? count : names.experts_in_lanes;
      if (names.flat)
        part.shape[0] *= part.parts;
      else
        part.shape.insert(part.shape.begin(), part.parts);
    }
    return result.emplace_back(std::move(part));
  };
  const std::size_t joined = names.order == lane_order::apart ? 1 : lanes;
  const auto place = [&](tensor_part& part, std::size_t lane) {
    if (names.order == lane_order::stacked)
      part.rows = {.first = lane * h, .count = h};
    else if (names.order == lane_order::interleaved)
      part.rows = {.first = lane, .step = lanes};
  };
  for (std::size_t l = 0; l < lanes; ++l)
    place(add(names.lanes[joined == 1 ? l : 0],
              names.lanes_transposed ? std::vector{d, joined * h} : std::vector{joined * h, d}, names.lanes_transposed),
          l);
  add(names.down, names.down_transposed ? std::vector{h, d} : std::vector{d, h}, names.down_transposed);
  // A bias is read as a column of its row.
  if (!names.lane_biases.empty())
    for (std::size_t l = 0; l < lanes; ++l)
      place(add(names.lane_biases[joined == 1 ? l : 0], {joined * h}, true), l);
  if (!names.down_bias.empty() && names.one_down_bias)
    result.push_back({.name = names.down_bias, .shape = {d}, .transposed = true});
  else if (!names.down_bias.empty())
    add(names.down_bias, {d}, true);
  return result;
}
} // namespace detail

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
