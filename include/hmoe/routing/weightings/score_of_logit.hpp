// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/score_function.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::routing {

/// w_i = F(z)_i: weights by another score function than the one by which experts are chosen, softmax, sigmoid,
/// sqrt_softplus or one's own. With normalized<score_of_logit<F>>: F(z)_i over the norm of the chosen ones.
template <class Function> struct score_of_logit {
  Function function{};

  [[nodiscard]] static constexpr std::size_t scratch_size(std::size_t experts) noexcept { return 2 * experts; }

  template <class T>
  void forward(vector_view<const T> logits, vector_view<const T>, vector_view<const index_t> chosen, vector_view<T> w,
               vector_view<T> scratch) const noexcept {
    const vector_view<T> scores = scratch.subview(0, logits.size());
    function.forward(logits, scores);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      w[i] = scores[chosen[i]];
  }
  /// The score function's own backward, from ∂L/∂F(z)_i = dw_i for chosen experts and 0 for others
  template <class T, class Values>
  void backward(vector_view<const T> logits, vector_view<const T>, vector_view<const index_t> chosen, const Values&,
                const Values& dw, vector_view<T> d_logits, vector_view<T>, vector_view<T> scratch) const noexcept {
    const std::size_t n = logits.size();
    const vector_view<T> scores = scratch.subview(0, n), d_scores = scratch.subview(n, n);
    function.forward(logits, scores);
    std::fill(d_scores.begin(), d_scores.end(), T(0));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      d_scores[chosen[i]] = dw[i];
    function.backward(logits, vector_view<const T>(scores), vector_view<const T>(d_scores), d_logits);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
