// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/operations.hpp>

#include <concepts>

namespace hmoe {

/// Turns a token's logits into probabilities (or other non-negative scores). Requirements, for one row of N values:
///   forward(z, p)                  p from z
///   backward(z, p, d_p, d_z)       adds ∂L/∂z, given ∂L/∂p
/// Optional: static constexpr bool makes_probabilities = false where losses must not take p for probabilities.
template <class F, class T>
concept score_function =
    std::copy_constructible<F> && requires(const F& f, vector_view<const T> in, vector_view<T> out) {
      f.forward(in, out);
      f.backward(in, in, in, out);
    };

namespace routing {

/// Whether losses may read what a score function makes.
template <class Function> [[nodiscard]] constexpr bool makes_probabilities() noexcept {
  if constexpr (requires { Function::makes_probabilities; })
    return Function::makes_probabilities;
  else
    return true;
}

/// p from z, by the backend where it has the operation (hmoe/execution/operations.hpp).
template <class Math, class Function, class T>
void score_row(const Math& math, const Function& function, vector_view<const T> z, vector_view<T> p) {
  if constexpr (operations::score<Math, T, Function>())
    math.score(function, z, p);
  else
    function.forward(z, p);
}

} // namespace routing

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
