// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/scalar_functions.hpp>

#include <cmath>
#include <concepts>

namespace hmoe {

/// Turns a token's probabilities into the weights of its chosen experts. Requirements, for one row:
///   forward(logits[N], p[N], chosen, w)                     w[i]: weight of expert chosen[i]; ids ascend
///   backward(logits, p, chosen, w, dw, d_logits, d_p)       adds ∂L/∂logits and ∂L/∂p, given ∂L/∂w
/// Optional: validate(N), which throws hmoe::error when it cannot work with N experts, and `static constexpr bool
/// on_input = true` for weights that scale what experts read. Those below take w and dw as anything with operator[], so
/// that `scaled` can pass values that it computes.
template <class W, class T>
concept weighting = std::copy_constructible<W> && requires(const W& weight, vector_view<const T> in,
                                                           vector_view<const index_t> chosen, vector_view<T> out) {
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
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                        const Values&, const Values& dw, vector_view<T>, vector_view<T> d_p) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += dw[i];
  }
};

/// What keeps renormalized away from 0/0: ε is added to the sum, or the sum counts as ε where it is smaller.
enum class epsilon_use { added, clamped };

/// w_i = p_i / Σ_chosen p_j: Mixtral, and HMoE for both of its routers. With an ε: p_i / (Σ p_j + ε), or
/// p_i / max(Σ p_j, ε).
struct renormalized {
  double epsilon = 0;
  epsilon_use use = epsilon_use::added;

  void validate(std::size_t) const {
    require(std::isfinite(epsilon) && epsilon >= 0, "renormalized with epsilon = ", epsilon,
            ": it must be finite and not below 0");
  }
  template <class T>
  HMOE_HOST_DEVICE void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                vector_view<T> w) const noexcept {
    const T divisor = bounded(total(p, chosen));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = p[chosen[i]] / divisor;
  }
  /// ∂L/∂p_i = (dw_i − Σ_j dw_j w_j) / divisor, and without the sum where the divisor is a clamped one
  template <class T, class Values>
  HMOE_HOST_DEVICE void backward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                 const Values& w, const Values& dw, vector_view<T>, vector_view<T> d_p) const noexcept {
    const T sum = total(p, chosen), divisor = bounded(sum);
    T dot = 0;
    if (use == epsilon_use::added || !(sum < static_cast<T>(epsilon)))
      for (std::size_t i = 0; i < chosen.size(); ++i)
        dot += dw[i] * w[i];
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_p[chosen[i]] += (dw[i] - dot) / divisor;
  }

private:
  template <class T> [[nodiscard]] HMOE_HOST_DEVICE T bounded(T sum) const noexcept {
    const T e = static_cast<T>(epsilon);
    return use == epsilon_use::added ? sum + e : sum < e ? e : sum;
  }
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE static T total(vector_view<const T> p, vector_view<const index_t> chosen) noexcept {
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

/// w_i = σ(z_i): Llama-4 (on the input side) and BASE layers.
struct sigmoid_of_logit {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T> logits, vector_view<const T>,
                                       vector_view<const index_t> chosen, vector_view<T> w) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = detail::logistic(logits[chosen[i]]);
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

/// w_i = 1 / (number of chosen experts): no gradient to the router (Hash Layers, with one expert the weight is 1).
struct equal {
  template <class T>
  HMOE_HOST_DEVICE static void forward(vector_view<const T>, vector_view<const T>, vector_view<const index_t> chosen,
                                       vector_view<T> w) noexcept {
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = T(1) / static_cast<T>(chosen.size());
  }
  template <class T, class Values>
  HMOE_HOST_DEVICE static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t>,
                                        const Values&, const Values&, vector_view<T>, vector_view<T>) noexcept {}
};

/// MoE++ (arXiv 2410.07348, its code): the last expert, which returns zero, gets weight 0, and the others
/// w_i = p_i / max(Σ_{chosen, not last} p_j, ε).
struct renormalized_without_last {
  double epsilon = 0x1p-23; ///< the rounding unit of float, as in the code

  void validate(std::size_t experts) const {
    require(epsilon > 0, "renormalized_without_last with epsilon = ", epsilon, ": it must be above 0");
    require(experts >= 2, "renormalized_without_last for ", experts, " expert: there must be at least 2");
  }
  template <class T>
  HMOE_HOST_DEVICE void forward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                vector_view<T> w) const noexcept {
    const T sum = total(p, chosen), e = static_cast<T>(epsilon), divisor = sum < e ? e : sum;
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = chosen[i] + 1 == p.size() ? T(0) : p[chosen[i]] / divisor;
  }
  template <class T, class Values>
  HMOE_HOST_DEVICE void backward(vector_view<const T>, vector_view<const T> p, vector_view<const index_t> chosen,
                                 const Values& w, const Values& dw, vector_view<T>, vector_view<T> d_p) const noexcept {
    const T sum = total(p, chosen), e = static_cast<T>(epsilon), divisor = sum < e ? e : sum;
    T dot = 0;
    if (!(sum < e))
      for (std::size_t i = 0; i < chosen.size(); ++i)
        dot += dw[i] * w[i]; // the last one's w is 0
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i] + 1 != p.size())
        d_p[chosen[i]] += (dw[i] - dot) / divisor;
  }

private:
  template <class T>
  [[nodiscard]] HMOE_HOST_DEVICE static T total(vector_view<const T> p, vector_view<const index_t> chosen) noexcept {
    T sum = 0;
    for (const index_t e : chosen)
      sum += e + 1 == p.size() ? T(0) : p[e];
    return sum;
  }
};

} // namespace routing
} // namespace hmoe
