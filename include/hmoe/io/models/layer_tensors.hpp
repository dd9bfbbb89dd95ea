// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/models/layer_description.hpp>
#include <hmoe/io/models/tensor_part.hpp>
#include <hmoe/io/name_list.hpp>
#include <hmoe/io/shards.hpp>
#include <hmoe/io/stored_experts.hpp>
#include <hmoe/io/stored_matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::io::models {

/// The tensors of a described layer in a checkpoint. hmoe::error, before any of them is read, where some are missing or
/// surplus (all of them are listed) or where a shape or type is another than described.
class layer_tensors {
public:
  /// `lanes`: 2 where experts are GLUs, 1 where they are two-layer perceptrons. The file must outlive this object.
  layer_tensors(const sharded_safetensors& file, const layer_description& layer, std::size_t lanes)
      : file_(&file), d_model_(layer.d_model) {
    choose_names(layer);
    for (const router_tensor& tensor : names_->router)
      if (const stored_tensor* found = claim(prefix_ + tensor.name)) {
        check_vector_or_matrix(*found, tensor);
        router_.emplace_back(tensor.parameter, found);
      }
    // Then the number of experts is one that the file has rows for. Without the router nothing more is looked for.
    const bool routed = missing_.empty();
    if (routed) {
      for (std::size_t e = 0; e < layer.experts; ++e)
        add_expert(names_->experts, lanes, e, layer.experts, false, layer.width, layer.d_model);
      if (layer.shared_width != 0)
        add_expert(names_->shared, lanes, 0, 1, true, layer.shared_width, layer.d_model);
    }
    name_list missing, surplus;
    for (const std::string& name : missing_)
      missing.add(name);
    if (routed)
      for (const stored_tensor* tensor : file.tensors())
        if (is_own(tensor->name()) && !claimed_.contains(tensor->name()))
          surplus.add(tensor->name());
    require(missing.empty() && surplus.empty(), file.name(), " and the layer ", in_quotes(prefix_),
            " that config.json describes disagree", missing.text("missing"), surplus.text("surplus"));
  }

  /// What the names of the layer's tensors begin with.
  [[nodiscard]] const std::string& prefix() const noexcept { return prefix_; }

  /// A tensor of the layer that is no parameter; hmoe::error where there is none.
  [[nodiscard]] const stored_tensor& at(std::string_view name) const { return file_->at(prefix_ + std::string(name)); }

  /// hmoe::error where the router has parameters of other names or shapes: then the description lacks something.
  template <class Router> void read_router(Router& router) const {
    std::size_t read = 0;
    router.visit_parameters([&](const auto& info, matrix_view<float> to) {
      for (const auto& [parameter, tensor] : router_)
        if (parameter == info.name) {
          tensor->read(to);
          ++read;
          return;
        }
      fail(prefix_ + ": no tensor is described for the parameter " + in_quotes(info.name));
    });
    require(read == router_.size(), prefix_, ": ", router_.size(), " tensors are described for the router, it has ",
            read);
  }
  /// All weights of a bank (its ffn_weights), expert after expert, straight from the file to where the bank has them.
  template <class Weights> void read_experts(Weights& weights, std::size_t lanes) const {
    // A row of values as a column.
    const auto read_bias = [](const stored_matrix& from, matrix_view<float> to) {
      from.read(0, {to.data(), to.cols(), 1});
    };
    for (std::size_t e = 0; e < weights.size(); ++e) {
      const expert_matrices& from = experts_[e];
      for (std::size_t l = 0; l < lanes; ++l)
        from.weights[l].read(0, weights.lane(e, l));
      from.weights[lanes].read(0, weights.output(e));
      if (!weights.has_biases())
        continue;
      for (std::size_t l = 0; l < lanes; ++l)
        if (!from.lane_biases.empty())
          read_bias(from.lane_biases[l], weights.lane_bias(e, l));
      if (from.output_bias)
        read_bias(*from.output_bias, weights.output_bias(e));
    }
  }
  /// The experts as a source for packing, which reads them from the mapped file panel by panel; Lanes are those of the
  /// constructor.
  template <std::size_t Lanes> [[nodiscard]] stored_experts<Lanes> experts() const {
    std::vector<stored_expert<Lanes>> result(experts_.size());
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      const expert_matrices& from = experts_[e];
      require(from.weights.size() == Lanes + 1, prefix_, ": an expert has ", from.weights.size(),
              " matrices, asked for are ", Lanes + 1);
      std::ranges::copy(from.weights, result[e].matrices.begin());
      std::ranges::copy(from.lane_biases, result[e].biases.begin());
      result[e].biases[Lanes] = from.output_bias;
    }
    return {d_model_, std::move(result)};
  }

private:
  struct expert_matrices {
    std::vector<stored_matrix> weights, lane_biases; ///< the lanes and the output matrix; none, or one of each lane
    std::optional<stored_matrix> output_bias;
  };
  /// What stands before "layers.0." in checkpoints: of language models, of their decoders alone, of models that also
  /// see images, of older releases.
  static constexpr std::array<std::string_view, 7> roots{
      "model.", "", "model.language_model.", "language_model.model.", "language_model.", "transformer.", "backbone."};

  /// The names of which the file has most; the first ones where it has none.
  void choose_names(const layer_description& layer) {
    std::size_t most = 0;
    names_ = &layer.names.front();
    prefix_ = std::string(roots[0]) + names_->block;
    for (const layer_names& names : layer.names)
      for (const std::string_view root : roots) {
        const std::string prefix = std::string(root) + names.block;
        std::size_t found = 0;
        for (const router_tensor& tensor : names.router)
          found += file_->find(prefix + tensor.name) != nullptr;
        const std::string first = prefix + detail::with_number(names.experts.lanes[0], 0);
        found += file_->find(names.experts.in_blocks ? first + "_blocks" : first) != nullptr;
        if (found > most) {
          most = found;
          names_ = &names;
          prefix_ = prefix;
        }
      }
  }
  /// Whether a tensor should be one that is described.
  [[nodiscard]] bool is_own(std::string_view name) const {
    if (!name.starts_with(prefix_))
      return false;
    const std::string_view rest = name.substr(prefix_.size());
    const auto unused = [&](const std::string& pattern) {
      const std::size_t star = pattern.find('*');
      if (star == pattern.npos)
        return rest == pattern;
      const std::string_view before = std::string_view(pattern).substr(0, star), after = pattern.c_str() + star + 1;
      return rest.size() > before.size() + after.size() && rest.starts_with(before) && rest.ends_with(after) &&
             rest.substr(before.size(), rest.size() - before.size() - after.size()).find_first_not_of("0123456789") ==
                 rest.npos;
    };
    return std::ranges::any_of(names_->own, [&](const std::string& own) { return rest.starts_with(own); }) &&
           std::ranges::none_of(names_->unused, unused);
  }
  const stored_tensor* claim(const std::string& name) {
    const stored_tensor* found = file_->find(name);
    if (found == nullptr)
      missing_.insert(name);
    else
      claimed_.insert(name);
    return found;
  }
  void check_vector_or_matrix(const stored_tensor& found, const router_tensor& needed) const {
    found.require_shape(needed.rows, needed.cols);
    require(found.type() == tensor_type::f32 || found.type() == tensor_type::bf16 || found.type() == tensor_type::f16,
            file_->name(), ": tensor ", in_quotes(found.name()), " is ", found.description(), ", needed is F32 [",
            needed.rows, ", ", needed.cols, "] or another type of that kind");
  }
  void add_expert(const expert_names& names, std::size_t lanes, std::size_t e, std::size_t count, bool single,
                  std::size_t h, std::size_t d) {
    expert_matrices& to = experts_.emplace_back();
    std::size_t next = 0; // lanes, output, biases of the lanes, that of the output
    for (tensor_part& part : detail::parts_of(names, lanes, e, count, single, h, d)) {
      const std::size_t at = next++;
      part.name = prefix_ + part.name;
      const weight_tensor tensor(*file_, part.name, part.shape);
      if (!tensor.found()) {
        missing_.insert(part.name);
        continue;
      }
      for (const std::string& name : tensor.names())
        claimed_.insert(name);
      if (at <= lanes)
        to.weights.push_back(tensor.matrix(part));
      else if (!names.lane_biases.empty() && at <= 2 * lanes)
        to.lane_biases.push_back(tensor.matrix(part));
      else
        to.output_bias = tensor.matrix(part);
    }
  }

  const sharded_safetensors* file_;
  const layer_names* names_ = nullptr;
  std::string prefix_;
  std::set<std::string> claimed_, missing_;
  std::vector<std::pair<std::string_view, const stored_tensor*>> router_;
  std::size_t d_model_;
  std::vector<expert_matrices> experts_; ///< the shared one last
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
