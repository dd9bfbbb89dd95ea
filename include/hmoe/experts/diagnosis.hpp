// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/bank.hpp>

#include <concepts>

namespace hmoe::detail {

/// Stops the compiler at the first requirement of hmoe::expert, or of hmoe::expert_bank, that B does not meet. What
/// has forward(x, y) is taken for an expert, everything else for a bank.
template <class B> consteval bool diagnose_bank() {
  if constexpr (expert_bank<B> || inference_bank<B>) {
    return true;
  } else if constexpr (!std::copyable<B>) {
    static_assert(std::copyable<B>,
                  "hmoe::expert_set: an element of Banks cannot be copied and assigned: its gradients "
                  "are a copy of it; did you keep a reference or a const member?");
  } else if constexpr (!requires { typename B::value_type; }) {
    static_assert(
        requires { typename B::value_type; },
        "hmoe::expert_set: an element of Banks is no expert: it lacks value_type, float or double");
  } else if constexpr (!real<typename B::value_type>) {
    static_assert(real<typename B::value_type>,
                  "hmoe::expert_set: the value_type of an element of Banks is neither float nor double");
  } else {
    using T = typename B::value_type;
    using in = matrix_view<const T>;
    using out = matrix_view<T>;
    static_assert(
        requires(const B& b) {
          { b.d_model() } -> std::convertible_to<std::size_t>;
        }, "hmoe::expert_set: an element of Banks lacks d_model(), const, the size of a token");
    static_assert(
        requires(B& b) { b.visit_parameters(any_visitor{}); },
        "hmoe::expert_set: an element of Banks lacks visit_parameters(f), which calls f(parameter_info, "
        "matrix_view<T>) for each of its tensors");
    if constexpr (requires(const B& b, in x, out y) { b.forward(x, y); }) {
      static_assert(
          requires(const B& b, in x, out dx, B& gradients) { b.backward(x, x, dx, gradients); },
          "hmoe::expert_set: an expert among Banks lacks backward(x, dy, dx, gradients), const: it writes dx "
          "and adds to the tensors of gradients, an object of its own type");
    } else {
      static_assert(
          requires(const B& b, std::size_t e, any_products m, in x, out y) { b.forward(m, e, x, y, y); },
          "hmoe::expert_set: an element of Banks lacks forward: forward(x, y), const, for a single expert, or "
          "forward(math, e, x, y, saved), const, for a bank");
      static_assert(
          requires(const B& b, std::size_t e, any_products m, in x, out y, B& g) {
            b.backward(m, e, x, x, x, y, y, g);
          },
          "hmoe::expert_set: a bank among Banks lacks backward(math, e, x, saved, dy, dx, scratch, gradients), const");
    }
    static_assert(expert_bank<B>,
                  "hmoe::expert_set: an element of Banks has forward and backward and is still no hmoe::expert_bank: "
                  "see the list of requirements in hmoe/experts/bank.hpp (size, width, saved_per_row, scratch_per_row, "
                  "flops_per_row, parameter_count, initialize)");
  }
  return false;
}

} // namespace hmoe::detail
