// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory_resource>

namespace hmoe::losses {

/// Which of a token's experts count in f: all that it selected (Switch's formula with K > 1 in Megatron, MegaBlocks,
/// transformers, HMoE), or the most probable of them only, ties to the lower id (GShard, DeepSpeed's top-2, MoDSE).
enum class balance_counts { all_choices, first_choice };

/// What the counts are divided by, and so what the loss is at perfect balance: by the tokens, which gives the mean
/// number K of choices that count (transformers, the HMoE paper), or by all that count, which gives 1 (Megatron,
/// MegaBlocks, DeepSeek).
enum class balance_normalization { to_k, to_one };

namespace detail {

/// Scratch for a loss: 8 KiB on the stack, which is enough for 500 experts; what does not fit comes from the heap.
class small_memory {
public:
  small_memory() = default;
  small_memory(const small_memory&) = delete;
  small_memory& operator=(const small_memory&) = delete;
  ~small_memory() = default;

  /// `count` zeros that live as long as this object.
  template <class V> [[nodiscard]] buffer<V> zeros(std::size_t count) {
    buffer<V> values(count, &resource_);
    values.fill(V{});
    return values;
  }

private:
  alignas(memory_alignment) std::array<std::byte, 8192> bytes_;
  std::pmr::monotonic_buffer_resource resource_{bytes_.data(), bytes_.size()};
};

/// The routed expert that the token selected with the highest probability, the lower id on ties; no_index for a token
/// without one. Shared experts, whose ids are not below N, never count.
template <class T> index_t first_choice(const routing_record<T>& record, std::size_t token) {
  const auto p = record.trace.probabilities().row(token);
  index_t best = no_index;
  for (const index_t e : record.assigned.experts_of(token))
    if (e < p.size() && (best == no_index || p[e] > p[best]))
      best = e;
  return best;
}

/// Adds to counts[N] the choices of tokens [first, last) and returns how many there were.
template <class T, class Count>
Count count_choices(const routing_record<T>& record, balance_counts which, std::size_t first, std::size_t last,
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
      add(first_choice(record, t));
    else
      for (const index_t e : record.assigned.experts_of(t))
        add(e);
  return total;
}

/// Turns counts into f: divided by `tokens` or by their sum `total`; all 0 when there is nothing to divide by.
inline void normalize_counts(vector_view<double> counts, balance_normalization how, double tokens, double total) {
  const double divisor = how == balance_normalization::to_k ? tokens : total;
  for (double& count : counts)
    count = divisor > 0 ? count / divisor : 0;
}

} // namespace detail
} // namespace hmoe::losses
