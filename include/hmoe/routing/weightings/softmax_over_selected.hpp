// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

/// w = softmax of the logits of the chosen experts only: gpt-oss. With softmax probabilities it is renormalized up to
/// rounding, and does not depend on how small the probabilities are.
struct softmax_over_selected {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T> logits, vector_view<const T>,
                                       vector_view<const index_t> chosen, vector_view<T> w) noexcept {
    if (chosen.empty())
      return;
    T largest = logits[chosen[0]];
    for (const index_t e : chosen)
      largest = logits[e] > largest ? logits[e] : largest;
    T sum = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      sum += w[i] = std::exp(logits[chosen[i]] - largest);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] /= sum;
  }
  /// ∂L/∂z_i = w_i (dw_i − Σ_j dw_j w_j)
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                        const Values& w, const Values& dw, vector_view<T> d_logits,
                                        vector_view<T>) noexcept {
    T dot = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      dot += dw[i] * w[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_logits[chosen[i]] += w[i] * (dw[i] - dot);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
