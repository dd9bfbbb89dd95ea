// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/preference.hpp>

#include <algorithm>
#include <cmath>
#include <memory_resource>

namespace hmoe::routing {

/// Experts choose tokens (Zhou et al. 2022, arXiv 2202.09368): each takes the c tokens that have the highest
/// probability for it, c = ⌊factor · T / N⌋, at least 1 and at most T. Padding tokens and experts that are out of
/// service count in neither T nor N. The load is balanced perfectly; a token may get any number of experts, none
/// included. Goes with the weighting `raw`. Ties to the lower token. The choice depends on the whole batch, later
/// tokens of a sequence included: not for autoregressive inference.
struct expert_choice {
  double factor = 2; ///< experts per token on average

  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("factor", factor); }
  void validate(std::size_t experts) const {
    require(factor > 0 && factor <= static_cast<double>(experts), "expert_choice with factor = ", factor, " for ",
            experts, " experts: it must be above 0, and at most ", experts);
  }
  /// c
  [[nodiscard]] std::size_t tokens_per_expert(std::size_t tokens, std::size_t experts) const noexcept {
    const auto c = static_cast<std::size_t>(factor * static_cast<double>(tokens) / static_cast<double>(experts));
    return std::min(std::max<std::size_t>(c, 1), tokens);
  }
  static void lay_out(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t) {
    const buffer<index_t> order(tokens, memory);
  }

  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource* memory) const {
    std::fill(counts.begin(), counts.end(), index_t{0});
    if (trace.valid_tokens() == 0)
      return;
    const std::size_t c = tokens_per_expert(trace.valid_tokens(), std::max<std::size_t>(trace.experts_in_service(), 1));
    const auto p = trace.probabilities();
    buffer<index_t> order(trace.tokens(), memory);
    for (std::size_t e = 0; e < trace.expert_count(); ++e) {
      std::size_t candidates = 0;
      for (std::size_t t = 0; t < trace.tokens(); ++t)
        if (trace.is_valid(t) && !trace.is_excluded(t, e))
          order[candidates++] = static_cast<index_t>(t);
      if (c < candidates)
        std::nth_element(order.begin(), order.begin() + c, order.begin() + candidates,
                         [&](index_t a, index_t b) { return preferred(p(a, e), a, p(b, e), b); });
      for (std::size_t i = 0; i < std::min(c, candidates); ++i)
        chosen(order[i], counts[order[i]]++) = static_cast<index_t>(e);
    }
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
