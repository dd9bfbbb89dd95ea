// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>
#include <utility>

namespace hmoe::losses {

/// Which of a token's experts count in f: all that it selected (Switch's formula with K > 1 in Megatron, MegaBlocks,
/// transformers, HMoE), or the most probable of them only, ties to the lower id (GShard, DeepSpeed's top-2, MoDSE).
enum class balance_counts { all_choices, first_choice };

/// What the counts are divided by, and so what the loss is at perfect balance: by the tokens, which gives the mean
/// number K of choices that count (transformers, the HMoE paper), or by all that count, which gives 1 (Megatron,
/// MegaBlocks, DeepSeek).
enum class balance_normalization { to_k, to_one };

namespace detail {

/// The routed expert of highest probability p[N] among a token's experts, the lower id on ties; no_index for a token
/// without one. Shared experts, whose ids are not below N, never count.
template <class T>
[[nodiscard]] HMOE_HOST_DEVICE index_t first_choice(vector_view<const T> p,
                                                    vector_view<const index_t> chosen) noexcept {
  index_t best = no_index;
  for (const index_t e : chosen)
    if (e < p.size() && (best == no_index || p[e] > p[best]))
      best = e;
  return best;
}

/// Adds to counts[N] the choices of tokens [first, last) and returns how many there were.
template <class T, class Count>
Count count_choices(const routed_batch<T>& batch, balance_counts which, std::size_t first, std::size_t last,
                    vector_view<Count> counts) {
  Count total{};
  const auto add = [&](index_t e) {
    if (e < counts.size()) {
      counts[e] += Count(1);
      total += Count(1);
    }
  };
  for (std::size_t t = first; t < last; ++t)
    if (which == balance_counts::first_choice)
      add(first_choice(std::as_const(batch.trace).probabilities().row(t), batch.assigned.experts_of(t)));
    else
      for (const index_t e : batch.assigned.experts_of(t))
        add(e);
  return total;
}

/// What counts are divided by to make f.
[[nodiscard]] HMOE_HOST_DEVICE inline double choice_divisor(balance_normalization how, double tokens,
                                                            double total) noexcept {
  return how == balance_normalization::to_k ? tokens : total;
}
/// f_i of an expert that was chosen `count` times; 0 when there is nothing to divide by.
[[nodiscard]] HMOE_HOST_DEVICE inline double choice_rate(double count, double divisor) noexcept {
  return divisor > 0 ? count / divisor : 0;
}

} // namespace detail
} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
