// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// w_i = σ(z_i): Llama-4 (on the input side) and BASE layers.
struct sigmoid_of_logit {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T> logits, vector_view<const T>,
                                       vector_view<const index_t> chosen, vector_view<T> w) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = hmoe::logistic(logits[chosen[i]]);
  }
  /// ∂L/∂z_i = dw_i w_i (1 − w_i)
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                        const Values& w, const Values& dw, vector_view<T> d_logits,
                                        vector_view<T>) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_logits[chosen[i]] += dw[i] * w[i] * (T(1) - w[i]);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
