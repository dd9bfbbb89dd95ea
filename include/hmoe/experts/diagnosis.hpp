// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/bank.hpp>

#include <concepts>

namespace hmoe::detail {

/// The first requirement of hmoe::expert, or of hmoe::expert_bank, that a class does not meet.
enum class bank_fault {
  none,
  not_copyable,
  no_value_type,
  other_value_type,
  no_d_model,
  no_visit_parameters,
  no_forward,
  no_expert_backward,
  no_bank_backward,
  no_bank
};

/// What has forward(x, y) is taken for an expert, everything else for a bank.
template <class B> consteval bank_fault fault_of_bank() {
  if constexpr (expert_bank<B> || inference_bank<B>) {
    return bank_fault::none;
  } else if constexpr (!std::copyable<B>) {
    return bank_fault::not_copyable;
  } else if constexpr (!requires { typename B::value_type; }) {
    return bank_fault::no_value_type;
  } else if constexpr (!float_or_double<typename B::value_type>) {
    return bank_fault::other_value_type;
  } else {
    using in = matrix_view<const typename B::value_type>;
    using out = matrix_view<typename B::value_type>;
    constexpr bool has_d_model = requires(const B& b) {
      { b.d_model() } -> std::convertible_to<std::size_t>;
    };
    constexpr bool is_visited = requires(B& b) { b.visit_parameters(any_visitor{}); };
    constexpr bool expert_forward = requires(const B& b, in x, out y) { b.forward(x, y); };
    constexpr bool expert_backward = requires(const B& b, in x, out dx, B& g) { b.backward(x, x, dx, g); };
    constexpr bool bank_forward =
        requires(const B& b, std::size_t e, any_products m, in x, out y) { b.forward(m, e, x, y, y); };
    constexpr bool bank_backward =
        requires(const B& b, std::size_t e, any_products m, in x, out y, B& g) { b.backward(m, e, x, x, x, y, y, g); };
    return !has_d_model                         ? bank_fault::no_d_model
           : !is_visited                        ? bank_fault::no_visit_parameters
           : !expert_forward && !bank_forward   ? bank_fault::no_forward
           : expert_forward && !expert_backward ? bank_fault::no_expert_backward
           : !expert_forward && !bank_backward  ? bank_fault::no_bank_backward
                                                : bank_fault::no_bank;
  }
}

/// Whether none of them has this fault: one sentence for each, and no others behind it.
template <bank_fault Fault, class... Banks> inline constexpr bool none_has = ((fault_of_bank<Banks>() != Fault) && ...);

} // namespace hmoe::detail

#include <hmoe/core/macros_on.hpp>
