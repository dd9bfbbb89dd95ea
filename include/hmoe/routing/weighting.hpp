// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>

#include <concepts>

namespace hmoe {

/// Turns a token's probabilities into the weights of its chosen experts. Requirements, for one row:
///   forward(logits[N], p[N], chosen, w)                     w[i]: weight of expert chosen[i]; ids ascend
///   backward(logits, p, chosen, w, dw, d_logits, d_p)       adds ∂L/∂logits and ∂L/∂p, given ∂L/∂w
/// Optional: validate(N), which throws hmoe::error when it cannot work with N experts, and `static constexpr bool
/// on_input = true` for weights that scale what experts read. Those of weightings/ take w and dw as anything with
/// operator[], so that `scaled` can pass values that it computes.
template <class W, class T>
concept weighting = std::copy_constructible<W> && requires(const W& weight, vector_view<const T> in,
                                                           vector_view<const index_t> chosen, vector_view<T> out) {
  weight.forward(in, in, chosen, out);
  weight.backward(in, in, chosen, in, in, out, out);
};

} // namespace hmoe
