// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <concepts>

namespace hmoe {

/// Turns a token's logits into probabilities (or other non-negative scores). Requirements, for one row of N values:
///   forward(z, p)                  p from z
///   backward(z, p, d_p, d_z)       adds ∂L/∂z, given ∂L/∂p
template <class F, class T>
concept score_function = std::copy_constructible<F> && requires(const F& f, vector_view<const T> in, vector_view<T> out) {
  f.forward(in, out);
  f.backward(in, in, in, out);
};

namespace routing {

/// p_i = e^{z_i} / Σ_j e^{z_j}, computed from z − max z.
struct softmax {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    T largest = z[0];
    for (const T value : z)
      largest = value > largest ? value : largest;
    T sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i)
      sum += p[i] = std::exp(z[i] - largest);
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] /= sum;
  }
  /// ∂L/∂z_i = p_i (dp_i − Σ_j dp_j p_j)
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T> p, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    T dot = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
      dot += d_p[i] * p[i];
    for (std::size_t i = 0; i < p.size(); ++i)
      d_z[i] += p[i] * (d_p[i] - dot);
  }
};

} // namespace routing
} // namespace hmoe
