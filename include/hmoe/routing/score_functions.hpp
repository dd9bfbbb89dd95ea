// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/scalar_functions.hpp>

#include <cmath>
#include <concepts>

namespace hmoe {

/// Turns a token's logits into probabilities (or other non-negative scores). Requirements, for one row of N values:
///   forward(z, p)                  p from z
///   backward(z, p, d_p, d_z)       adds ∂L/∂z, given ∂L/∂p
template <class F, class T>
concept score_function =
    std::copy_constructible<F> && requires(const F& f, vector_view<const T> in, vector_view<T> out) {
      f.forward(in, out);
      f.backward(in, in, in, out);
    };

namespace routing {

/// p from z on a backend, which may have score(function, z, p) for functions that it does faster.
template <class Math, class Function, class T>
void score_row(const Math& math, const Function& function, vector_view<const T> z, vector_view<T> p) {
  if constexpr (requires { math.score(function, z, p); })
    math.score(function, z, p);
  else
    function.forward(z, p);
}

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

/// p_i = σ(z_i): experts do not compete for probability (DeepSeek-V3).
struct sigmoid {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = detail::logistic(z[i]);
  }
  /// ∂L/∂z_i = dp_i p_i (1 − p_i)
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T> p, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < p.size(); ++i)
      d_z[i] += d_p[i] * p[i] * (T(1) - p[i]);
  }
};

/// p_i = √softplus(z_i) = √log(1 + e^{z_i}): positive, and without the upper bound of a sigmoid (the score function
/// "sqrtsoftplus" of DeepSeek-V4 and of Megatron-LM's router).
struct sqrt_softplus {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = std::sqrt(detail::softplus(z[i]));
  }
  /// ∂L/∂z_i = dp_i σ(z_i) / (2 p_i); 0 where p_i has underflowed, which is its limit.
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T> z, vector_view<const T> p, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < p.size(); ++i)
      if (p[i] != 0)
        d_z[i] += d_p[i] * detail::logistic(z[i]) / (T(2) * p[i]);
  }
};

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

/// p_i = z_i: for routers that select on the logits and weight by a function of their own (gpt-oss, Llama-4). These
/// are no probabilities: top_p and losses on probabilities have no meaning with it.
struct unscored {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = z[i];
  }
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    for (std::size_t i = 0; i < d_z.size(); ++i)
      d_z[i] += d_p[i];
  }
};

} // namespace routing
} // namespace hmoe
