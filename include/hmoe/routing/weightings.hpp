// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <concepts>

namespace hmoe {

/// Turns a token's probabilities into the weights of its chosen experts. Requirements, for one row:
///   forward(logits[N], p[N], chosen, w)                     w[i]: weight of expert chosen[i]; ids ascend
///   backward(logits, p, chosen, w, dw, d_logits, d_p)       adds ∂L/∂logits and ∂L/∂p, given ∂L/∂w
template <class W, class T>
concept weighting = std::copy_constructible<W> &&
                    requires(const W& weight, vector_view<const T> in, vector_view<const index_t> chosen,
                             vector_view<T> out) {
                      weight.forward(in, in, chosen, out);
                      weight.backward(in, in, chosen, in, in, out, out);
                    };

namespace routing {

/// w_i = p_i: what Huang et al.'s top-p code and OLMoE do.
struct raw {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                       vector_view<T> w) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = p[chosen[i]];
  }
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                        vector_view<const T>, vector_view<const T> dw, vector_view<T>,
                                        vector_view<T> d_p) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += dw[i];
  }
};

/// w_i = p_i / Σ_chosen p_j: Mixtral, and HMoE for both of its routers.
struct renormalized {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                       vector_view<T> w) noexcept {
    const T sum = total(p, chosen);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = p[chosen[i]] / sum;
  }
  /// ∂L/∂p_i = (dw_i − Σ_j dw_j w_j) / Σ_chosen p
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T> p,
                                        vector_view<const index_t> chosen, vector_view<const T> w,
                                        vector_view<const T> dw, vector_view<T>, vector_view<T> d_p) noexcept {
    const T sum = total(p, chosen);
    T dot = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      dot += dw[i] * w[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += (dw[i] - dot) / sum;
  }

private:
  template <class T>
  HMOE_HOST_DEVICE static T total(vector_view<const T> p, vector_view<const index_t> chosen) noexcept {
    T sum = 0;
    for (const index_t e : chosen)
      sum += p[e];
    return sum;
  }
};

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
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                        vector_view<const T> w, vector_view<const T> dw, vector_view<T> d_logits,
                                        vector_view<T>) noexcept {
    T dot = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      dot += dw[i] * w[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_logits[chosen[i]] += w[i] * (dw[i] - dot);
  }
};

} // namespace routing
} // namespace hmoe
