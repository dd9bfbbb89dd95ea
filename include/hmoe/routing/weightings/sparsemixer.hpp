// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/scores/noise.hpp>
#include <hmoe/routing/weighting.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <memory_resource>
#include <optional>

namespace hmoe::routing {

/// SparseMixer-v2 with two experts per token, the router of PhiMoE (arXiv 2409.12136; Liu et al. 2023, arXiv
/// 2310.00811), selection and weighting at once: a router has it as both, with the same ε, over `unscored` scores.
///   Candidates: the logits z_j with (max z − z_j) / max(|z_j|, max z) ≤ 2ε, max z among the candidates' experts;
///   q = softmax over them. The first expert is chosen among those of all experts, the second among those of the rest.
///   Without noise each choice is the largest logit, and its weight q of it.
///   With routing_inputs::noise each choice is drawn from q. Its weight is q of it, times 0.3333 where it is not the
///   most probable one, except with probability 1/4 (Heun's third-order method).
/// The gradient is the same in both modes: ∂L/∂z_j += dw q_c (1{j = c} − q_j), an estimate in the second.
struct sparsemixer {
  double epsilon = 0; ///< the model's router_jitter_noise; 0: not given, an hmoe::error

  static constexpr bool reads_row = true;

  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("epsilon", epsilon); }
  void validate(std::size_t experts) const {
    require(std::isfinite(epsilon) && epsilon > 0, "sparsemixer with epsilon = ", epsilon,
            ": give the model's router_jitter_noise, finite and above 0, as in {.epsilon = 0.01}");
    require(experts >= 2, "sparsemixer chooses 2 experts of ", experts);
  }
  [[nodiscard]] static constexpr std::size_t max_selected(std::size_t) noexcept { return 2; }

  /// The selection.
  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource*) const {
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      counts[t] = 0;
      if (!trace.is_valid(t))
        continue;
      for_each_choice(weighting_row{t, trace.inputs().noise}, trace.logits().row(t),
                      [&](const choice<T>& c) { chosen(t, counts[t]++) = c.expert; });
    }
  }

  /// The weighting.
  template <class T>
  void forward(const weighting_row& at, vector_view<const T> logits, vector_view<const T>,
               vector_view<const index_t> chosen, vector_view<T> w) const {
    for (T& weight : w)
      weight = T(0);
    for_each_choice(at, logits, [&](const choice<T>& c) {
      for (std::size_t i = 0; i < chosen.size(); ++i)
        if (chosen[i] == c.expert)
          w[i] = c.probability(logits, c.expert) * c.factor;
    });
  }
  template <class T>
  void backward(const weighting_row& at, vector_view<const T> logits, vector_view<const T>,
                vector_view<const index_t> chosen, vector_view<const T>, vector_view<const T> dw,
                vector_view<T> d_logits, vector_view<T>) const {
    for_each_choice(at, logits, [&](const choice<T>& c) {
      T slope = 0;
      for (std::size_t i = 0; i < chosen.size(); ++i)
        if (chosen[i] == c.expert)
          slope = dw[i] * c.probability(logits, c.expert);
      for (index_t e = 0; e < logits.size(); ++e)
        if (c.is_candidate(logits, e))
          d_logits[e] += slope * ((e == c.expert ? T(1) : T(0)) - c.probability(logits, e));
    });
  }

private:
  template <class T> struct choice {
    T largest;      ///< among the experts that are left
    T sum = 0;      ///< Σ e^{z − largest} over the candidates
    T width;        ///< 2ε
    index_t before; ///< chosen before it, or no_index
    index_t expert = no_index;
    T factor = 1;

    [[nodiscard]] bool is_candidate(vector_view<const T> z, index_t e) const noexcept {
      if (e == before || z[e] == -std::numeric_limits<T>::infinity())
        return false;
      const T size = std::abs(z[e]) > largest ? std::abs(z[e]) : largest;
      return !((largest - z[e]) / size > width); // 0 / 0 is a candidate
    }
    [[nodiscard]] T probability(vector_view<const T> z, index_t e) const noexcept {
      return std::exp(z[e] - largest) / sum;
    }
  };

  /// f(choice) for the first and the second.
  template <class T, class F> void for_each_choice(const weighting_row& at, vector_view<const T> z, F f) const {
    index_t before = no_index;
    for (std::size_t round = 0; round < 2; ++round) {
      const choice<T> c = choose(at, z, round, before);
      if (c.expert == no_index)
        return; // no expert is left in service
      f(c);
      before = c.expert;
    }
  }
  template <class T>
  [[nodiscard]] choice<T> choose(const weighting_row& at, vector_view<const T> z, std::size_t round,
                                 index_t before) const {
    index_t best = no_index;
    for (index_t e = 0; e < z.size(); ++e)
      if (e != before && z[e] != -std::numeric_limits<T>::infinity() && (best == no_index || z[e] > z[best]))
        best = e;
    if (best == no_index)
      return {T(0), T(0), T(0), before};
    choice<T> c{z[best], T(0), static_cast<T>(2 * epsilon), before, best};
    double highest = -std::numeric_limits<double>::infinity();
    for (index_t e = 0; e < z.size(); ++e) {
      if (!c.is_candidate(z, e))
        continue;
      c.sum += std::exp(z[e] - c.largest);
      if (!at.noise)
        continue;
      const double drawn =
          static_cast<double>(z[e]) + detail::choice_noise(*at.noise, at.token, 2 * z.size(), round * z.size() + e);
      if (drawn > highest) {
        highest = drawn;
        c.expert = e;
      }
    }
    if (at.noise && c.expert != best && !(detail::choice_coin(*at.noise, at.token, 2, round) > 0.75))
      c.factor = T(0.3333);
    return c;
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
