// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix.hpp>

#include <memory_resource>

namespace hmoe {

/// What the router computed for a batch, and where losses leave their gradients.
template <class T> class router_trace {
public:
  router_trace() : router_trace(std::pmr::get_default_resource()) {}
  explicit router_trace(std::pmr::memory_resource* memory)
      : logits_(memory), probabilities_(memory), d_logits_(memory), d_probabilities_(memory),
        tokens_per_expert_(memory) {}

  [[nodiscard]] std::size_t tokens() const noexcept { return logits_.rows(); }
  [[nodiscard]] std::size_t expert_count() const noexcept { return logits_.cols(); }

  /// [T×N] router outputs before and after the score function.
  [[nodiscard]] matrix_view<T> logits() noexcept { return logits_.view(); }
  [[nodiscard]] matrix_view<const T> logits() const noexcept { return logits_.view(); }
  [[nodiscard]] matrix_view<T> probabilities() noexcept { return probabilities_.view(); }
  [[nodiscard]] matrix_view<const T> probabilities() const noexcept { return probabilities_.view(); }
  /// [N] how many tokens selected each expert.
  [[nodiscard]] vector_view<index_t> tokens_per_expert() noexcept { return tokens_per_expert_.view(); }
  [[nodiscard]] vector_view<const index_t> tokens_per_expert() const noexcept { return tokens_per_expert_.view(); }

  /// [T×N] gradient sinks: auxiliary losses add ∂L/∂logits and ∂L/∂probabilities here, the router's backward pass
  /// reads them. Empty in a trace made for inference.
  [[nodiscard]] matrix_view<T> d_logits() noexcept { return d_logits_.view(); }
  [[nodiscard]] matrix_view<T> d_probabilities() noexcept { return d_probabilities_.view(); }
  [[nodiscard]] matrix_view<const T> d_logits() const noexcept { return d_logits_.view(); }
  [[nodiscard]] matrix_view<const T> d_probabilities() const noexcept { return d_probabilities_.view(); }

  void resize(std::size_t tokens, std::size_t expert_count, bool with_gradients) {
    logits_.resize_for_overwrite(tokens, expert_count);
    probabilities_.resize_for_overwrite(tokens, expert_count);
    tokens_per_expert_.resize_for_overwrite(expert_count);
    tokens_per_expert_.fill(0);
    if (with_gradients) {
      d_logits_.resize_for_overwrite(tokens, expert_count);
      d_probabilities_.resize_for_overwrite(tokens, expert_count);
      clear_gradients();
    }
  }
  void clear_gradients() noexcept {
    d_logits_.set_zero();
    d_probabilities_.set_zero();
  }

  [[nodiscard]] static constexpr std::size_t bytes(std::size_t tokens, std::size_t expert_count) noexcept {
    return 2 * aligned_bytes<T>(tokens * expert_count) + aligned_bytes<index_t>(expert_count);
  }

private:
  matrix<T> logits_, probabilities_, d_logits_, d_probabilities_;
  buffer<index_t> tokens_per_expert_;
};

/// All that an auxiliary loss or a statistic may look at.
template <class T> struct routing_record {
  router_trace<T>& trace;
  const assignment<T>& assigned;
  vector_view<const std::size_t> widths; ///< [N] hidden width of each expert
};

} // namespace hmoe
