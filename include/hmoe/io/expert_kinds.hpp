// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/scalar.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/zero.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::io {

namespace detail {
/// The word for a gate or an activation in a file; a user's own says it by a member `name`.
template <class Gate> [[nodiscard]] std::string gate_name() {
  if constexpr (std::same_as<Gate, experts::silu>)
    return "silu";
  else if constexpr (std::same_as<Gate, experts::gelu>)
    return "gelu";
  else if constexpr (std::same_as<Gate, experts::gelu_tanh>)
    return "gelu_tanh";
  else if constexpr (std::same_as<Gate, experts::relu>)
    return "relu";
  else if constexpr (std::same_as<Gate, experts::squared_relu>)
    return "squared_relu";
  else if constexpr (std::same_as<Gate, experts::linear>)
    return "linear";
  else if constexpr (requires { std::string(Gate::name); })
    return std::string(Gate::name);
  else
    return "custom";
}
} // namespace detail

/// The word for a kind of experts in a file. A bank or an expert of a user says its own by a static member `kind`, or
/// by a specialisation of this. `feed_forward`: an expert of width 0 returns its output bias, whatever the activation.
template <class Bank> struct expert_kind {
  static constexpr bool feed_forward = false;
  [[nodiscard]] static std::string name() {
    if constexpr (requires { std::string(Bank::kind); })
      return std::string(Bank::kind);
    else
      return "custom";
  }
};
template <expert E> struct expert_kind<experts::bank_of<E>> {
  static constexpr bool feed_forward = false;
  [[nodiscard]] static std::string name() { return expert_kind<E>::name(); }
};
template <class T, class Gate> struct expert_kind<experts::glu_bank<T, Gate>> {
  static constexpr bool feed_forward = true;
  [[nodiscard]] static std::string name() { return "glu." + detail::gate_name<Gate>(); }
};
template <class T> struct expert_kind<experts::gpt_oss_glu_bank<T>> {
  static constexpr bool feed_forward = true;
  [[nodiscard]] static std::string name() { return "glu.gpt_oss"; }
};
template <class T, class Activation> struct expert_kind<experts::mlp_bank<T, Activation>> {
  static constexpr bool feed_forward = true;
  [[nodiscard]] static std::string name() { return "mlp." + detail::gate_name<Activation>(); }
};
template <class T> struct expert_kind<experts::low_rank_bank<T>> {
  static constexpr bool feed_forward = false;
  [[nodiscard]] static std::string name() { return "low_rank"; }
};
template <class T> struct expert_kind<experts::constant_bank<T>> {
  static constexpr bool feed_forward = false;
  [[nodiscard]] static std::string name() { return "constant"; }
};
template <class T> struct expert_kind<experts::identity_bank<T>> {
  static constexpr bool feed_forward = false;
  [[nodiscard]] static std::string name() { return "identity"; }
};
template <class T> struct expert_kind<experts::zero_bank<T>> {
  static constexpr bool feed_forward = false;
  [[nodiscard]] static std::string name() { return "zero"; }
};

/// The kind of each expert of a set, by id. A feed-forward expert of width 0 is of the kind "vector".
template <class... Banks> [[nodiscard]] std::vector<std::string> kinds_of(const expert_set<Banks...>& set) {
  std::vector<std::string> kinds(set.size());
  const auto add = [&]<std::size_t B>() {
    using kind = expert_kind<std::remove_cvref_t<decltype(set.template bank<B>())>>;
    const auto& ids = set.ids().of_bank[B];
    for (const std::size_t id : ids)
      kinds[id] = kind::feed_forward && set.width(id) == 0 ? "vector" : kind::name();
  };
  [&]<std::size_t... B>(std::index_sequence<B...>) {
    (add.template operator()<B>(), ...);
  }(std::index_sequence_for<Banks...>());
  return kinds;
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
