// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// p_i = σ(z_i): experts do not compete for probability (DeepSeek-V3).
struct sigmoid {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = hmoe::logistic(z[i]);
  }
  /// ∂L/∂z_i = dp_i p_i (1 − p_i)
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T> p, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < p.size(); ++i)
      d_z[i] += d_p[i] * p[i] * (T(1) - p[i]);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
