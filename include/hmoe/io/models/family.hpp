// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/io/models/layer_description.hpp>
#include <hmoe/io/models/layer_tensors.hpp>
#include <hmoe/io/models/model_config.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <concepts>
#include <cstddef>
#include <memory_resource>
#include <string_view>
#include <utility>

namespace hmoe::io::models {

/// A family of released models. Requirements, all static:
///   model_type                          the word for it in config.json; `also`, an array of further ones, is optional
///   fits(config, layer)                 optional: whether it is a layer of this type, where a family has several
///   experts_type, router_type           an expert_set whose first bank has the weights, and a router
///   lanes                               2 where the experts of that bank are GLUs, 1 where they are perceptrons
///   describe(config, layer)             the layer_description of layer `layer`; hmoe::error where it has no experts
///   make_experts(config, description, memory), make_router(config, description)
///                                       of the right sizes and constants, with any weights; a router that is made of
///                                       a tensor takes the layer_tensors as a third argument
/// glu_family and mlp_family have all but describe and make_router.
template <class F>
concept model_family = requires(const model_config& config, const layer_description& description) {
  { F::model_type } -> std::convertible_to<std::string_view>;
  { F::lanes } -> std::convertible_to<std::size_t>;
  { F::describe(config, std::size_t{}) } -> std::same_as<layer_description>;
  { F::make_experts(config, description, std::pmr::get_default_resource()) } -> std::same_as<typename F::experts_type>;
  requires requires {
    { F::make_router(config, description) } -> std::same_as<typename F::router_type>;
  } || requires(const layer_tensors& tensors) {
    { F::make_router(config, description, tensors) } -> std::same_as<typename F::router_type>;
  };
};

/// Experts are GLUs with the gate, and the router is of the type given.
template <class Router, class Gate = hmoe::experts::silu, hmoe::experts::biases Bias = hmoe::experts::biases::none>
struct glu_family {
  using bank_type = hmoe::experts::glu_bank<float, Gate>;
  using experts_type = expert_set<bank_type>;
  using router_type = Router;
  static constexpr std::size_t lanes = 2;

  [[nodiscard]] static experts_type make_experts(const model_config&, const layer_description& layer,
                                                 std::pmr::memory_resource* memory) {
    return experts_type{bank_type(layer.d_model, layer.widths(), Bias, {}, memory)};
  }
};
/// Experts are two-layer perceptrons with the activation.
template <class Router, activation Activation> struct mlp_family {
  using bank_type = hmoe::experts::mlp_bank<float, Activation>;
  using experts_type = expert_set<bank_type>;
  using router_type = Router;
  static constexpr std::size_t lanes = 1;

  [[nodiscard]] static experts_type make_experts(const model_config&, const layer_description& layer,
                                                 std::pmr::memory_resource* memory) {
    return experts_type{bank_type(layer.d_model, layer.widths(), hmoe::experts::biases::none, memory)};
  }
};

/// Whether config.json's model_type is one of the family, and the layer of its type.
template <model_family Family> [[nodiscard]] bool is_of_family(const model_config& config, std::size_t layer) {
  bool named = config.family() == Family::model_type;
  if constexpr (requires { Family::also; })
    for (const std::string_view other : Family::also)
      named = named || config.family() == other;
  if constexpr (requires { Family::fits(config, layer); })
    return named && Family::fits(config, layer);
  else
    return named;
}

/// The layer of a family as a type.
template <model_family Family> using layer_of = moe_layer<typename Family::experts_type, typename Family::router_type>;

} // namespace hmoe::io::models
