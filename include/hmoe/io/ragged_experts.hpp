// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/ragged_manifest.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/stored_experts.hpp>
#include <hmoe/io/stored_matrix.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io {

/// The feed-forward experts of a layer of unequal experts as a source for simd::pack: all of the kind ("glu.silu",
/// "mlp.relu", …), which has `Lanes` matrices that read a token, or of the kind "vector". Ids are places in it.
/// hmoe::error where the file has no such layer, other kinds of experts, or tensors of other shapes. The file must
/// outlive it.
template <std::size_t Lanes>
[[nodiscard]] stored_experts<Lanes> ragged_experts(const safetensors_file& file, std::string_view prefix,
                                                   std::string_view kind) {
  static_assert(Lanes == 1 || Lanes == 2, "hmoe::io::ragged_experts: Lanes is neither 1 (an MLP) nor 2 (a GLU)");
  require(kind.starts_with(Lanes == 2 ? "glu." : "mlp."), "experts of the kind ", in_quotes(kind), " have not ", Lanes,
          " matrices that read a token");
  const ragged_manifest manifest = read_ragged_manifest(file);
  const ragged_layer* layer = manifest.find(prefix);
  require(layer != nullptr, file.name(), " has no layer with the prefix ", in_quotes(prefix), "; it has ",
          manifest.layers.size(), " layers");
  std::vector<stored_expert<Lanes>> experts;
  for (std::size_t e = 0; e < layer->experts.size(); ++e) {
    const ragged_expert& from = layer->experts[e];
    require(from.kind == kind || (from.kind == "vector" && from.width == 0), file.name(), ": layer ", in_quotes(prefix),
            ": expert ", e, " is of the kind ", in_quotes(from.kind), ", asked for is ", in_quotes(kind));
    const auto find = [&](std::string_view name) {
      return file.find(std::string(prefix) + parameter_info{.name = name, .expert = e}.full_name());
    };
    stored_expert<Lanes>& to = experts.emplace_back();
    const std::array<std::string_view, 3> names{"gate", "up", "down"};
    for (std::size_t m = 0; m <= Lanes; ++m) {
      const std::string name(names[m + 2 - Lanes]);
      if (const stored_tensor* found = find(name); found != nullptr && from.width != 0)
        to.matrices[m].emplace(*found);
      if (const stored_tensor* found = find(name + "_bias"); found != nullptr && found->size() != 0)
        to.biases[m].emplace(stored_matrix::column(*found));
    }
    const auto& up = to.matrices[Lanes - 1];
    require((up ? up->rows() : 0) == from.width, file.name(), ": layer ", in_quotes(prefix), ": expert ", e,
            " has width ", from.width, " by the manifest, its tensor ", in_quotes("up"), " ", up ? up->rows() : 0,
            " rows");
  }
  return {layer->d_model, std::move(experts)};
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
