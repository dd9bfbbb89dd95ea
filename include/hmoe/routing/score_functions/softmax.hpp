// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

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

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
