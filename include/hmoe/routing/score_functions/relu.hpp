// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// p_i = max(z_i, 0): differentiable routing, where the experts above zero are the chosen ones (ReMoE, Wang et al.
/// 2024, arXiv 2412.14711). Goes with the selection `positive` and the weighting `raw`.
struct relu {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = z[i] < 0 ? T(0) : z[i]; // NaN stays
  }
  /// ∂L/∂z_i = dp_i where z_i > 0, else 0
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T> z, vector_view<const T>, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      if (z[i] > 0)
        d_z[i] += d_p[i];
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
