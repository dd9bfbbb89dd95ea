// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

/// p_i = √softplus(z_i) = √log(1 + e^{z_i}): positive, and without the upper bound of a sigmoid (the score function
/// "sqrtsoftplus" of DeepSeek-V4 and of Megatron-LM's router).
struct sqrt_softplus {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = std::sqrt(hmoe::softplus(z[i]));
  }
  /// ∂L/∂z_i = dp_i σ(z_i) / (2 p_i); 0 where p_i has underflowed, which is its limit.
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T> z, vector_view<const T> p, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < p.size(); ++i)
      if (p[i] != 0)
        d_z[i] += d_p[i] * hmoe::logistic(z[i]) / (T(2) * p[i]);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
