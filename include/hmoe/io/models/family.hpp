// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/io/in_quotes.hpp>
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
///   bank_type, router_type              a bank of feed-forward experts and a router
///   lanes                               2 where experts are GLUs, 1 where they are perceptrons
///   bias                                whether they have biases
///   describe(config, layer)             the layer_description of layer `layer`; hmoe::error where it has no experts
///   make_gate(config)                   their gate or activation, with the model's constants
///   make_experts(config, description, bank)
///                                       the expert_set of a bank of the experts with weights (a bank_type, or what
///                                       packing makes of one), which comes first, and of those without weights
///   make_router(config, description)    of the right size and constants, with any weights; where it is made of a
///                                       tensor, it takes the layer_tensors as a third argument
/// glu_family and mlp_family have all but describe and make_router.
template <class F>
concept model_family =
    requires(const model_config& config, const layer_description& description, typename F::bank_type bank) {
      { F::model_type } -> std::convertible_to<std::string_view>;
      { F::lanes } -> std::convertible_to<std::size_t>;
      { F::bias } -> std::convertible_to<hmoe::experts::biases>;
      { F::describe(config, std::size_t{}) } -> std::same_as<layer_description>;
      F::make_gate(config);
      F::make_experts(config, description, std::move(bank));
      requires requires {
        { F::make_router(config, description) } -> std::same_as<typename F::router_type>;
      } || requires(const layer_tensors& tensors) {
        { F::make_router(config, description, tensors) } -> std::same_as<typename F::router_type>;
      };
    };

namespace detail {
/// All experts have weights.
struct one_bank {
  template <class Bank>
  [[nodiscard]] static expert_set<Bank> make_experts(const model_config&, const layer_description&, Bank bank) {
    return expert_set<Bank>{std::move(bank)};
  }
};
} // namespace detail

/// Experts are GLUs with the gate, and the router is of the type given.
template <class Router, class Gate = hmoe::experts::silu, hmoe::experts::biases Bias = hmoe::experts::biases::none>
struct glu_family : detail::one_bank {
  using bank_type = hmoe::experts::glu_bank<float, Gate>;
  using router_type = Router;
  static constexpr std::size_t lanes = 2;
  static constexpr hmoe::experts::biases bias = Bias;

  [[nodiscard]] static typename bank_type::gate_type make_gate(const model_config&) { return {}; }
};
/// Experts are two-layer perceptrons with the activation.
template <class Router, activation Activation> struct mlp_family : detail::one_bank {
  using bank_type = hmoe::experts::mlp_bank<float, Activation>;
  using router_type = Router;
  static constexpr std::size_t lanes = 1;
  static constexpr hmoe::experts::biases bias = hmoe::experts::biases::none;

  [[nodiscard]] static Activation make_gate(const model_config&) { return {}; }
};

/// The bank of a family's experts with weights, of zeros in memory of the given resource.
template <model_family Family>
[[nodiscard]] typename Family::bank_type make_bank(const model_config& config, const layer_description& layer,
                                                   std::pmr::memory_resource* memory) {
  if constexpr (Family::lanes == 2)
    return {layer.d_model, layer.widths(), Family::bias, Family::make_gate(config), memory};
  else
    return {layer.d_model, layer.widths(), Family::bias, memory};
}
/// The router of a layer, with the weights of the file.
template <model_family Family>
[[nodiscard]] typename Family::router_type make_router(const model_config& config, const layer_description& layer,
                                                       const layer_tensors& tensors) {
  typename Family::router_type router = [&] {
    if constexpr (requires { Family::make_router(config, layer, tensors); })
      return Family::make_router(config, layer, tensors);
    else
      return Family::make_router(config, layer);
  }();
  tensors.read_router(router);
  return router;
}

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

/// hmoe::error unless the layer is of the family.
template <model_family Family> void require_family(const model_config& config, std::size_t layer) {
  require(is_of_family<Family>(config, layer), config.name(), ": layer ", layer, " is of the family ",
          in_quotes(config.family()), ", asked for is a layer of ", in_quotes(Family::model_type));
}

/// The set of a family's experts where those with weights are a Bank, and the layer of a family, as types.
template <model_family Family, class Bank = typename Family::bank_type>
using experts_of = decltype(Family::make_experts(std::declval<const model_config&>(),
                                                 std::declval<const layer_description&>(), std::declval<Bank>()));
template <model_family Family> using layer_of = moe_layer<experts_of<Family>, typename Family::router_type>;

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
