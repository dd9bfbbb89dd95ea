// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/packed_values.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/io/expert_kinds.hpp>

#include <concepts>
#include <cstddef>
#include <string>

namespace hmoe::io::detail {

template <class Gate> struct activation_of_gate {
  using type = Gate;
};
template <class Activation> struct activation_of_gate<experts::gated<Activation>> {
  using type = Activation;
};
/// The word for what a packed bank computes, as io/expert_kinds.hpp has it for the bank that it was made of.
template <packed_form Bank> [[nodiscard]] std::string packed_kind() {
  using gate = typename Bank::gate_type;
  if constexpr (std::same_as<gate, experts::gpt_oss_gate>)
    return "glu.gpt_oss";
  else
    return (Bank::layout().lanes == 2 ? "glu." : "mlp.") + gate_name<typename activation_of_gate<gate>::type>();
}
/// The same of a bank: a packed_form, or an any_packed_bank, which knows it by itself.
template <class Bank> [[nodiscard]] std::string packed_kind_of(const Bank& bank) {
  if constexpr (packed_form<Bank>)
    return packed_kind<Bank>();
  else
    return bank.kind();
}
/// Whether a bank can be taken apart into packed_values, and its kind is known.
template <class Bank>
concept gives_packed_values = packed_form<Bank> || requires(const Bank& bank) {
  { bank.layout() } -> std::convertible_to<packed_layout>;
  { bank.values() } -> std::same_as<packed_values>;
  { bank.kind() } -> std::convertible_to<std::string>;
};
[[nodiscard]] inline std::string bank_prefix(std::size_t b) {
  return std::string("banks.").append(std::to_string(b)).append(".");
}

} // namespace hmoe::io::detail

#include <hmoe/core/macros_on.hpp>
