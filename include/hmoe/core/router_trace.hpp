// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/random.hpp>

#include <cstdint>
#include <limits>
#include <memory_resource>
#include <optional>

namespace hmoe {

template <class T> class router_trace;

/// Where a noisy router draws its numbers: token t of the batch uses positions of the stream `step`.
struct noise_source {
  seed key;
  std::uint64_t step = 0;
};

/// Further data of a batch that some routers and losses read. Everything is optional, and views must stay valid until
/// the backward pass is over.
template <class T> struct routing_inputs {
  std::optional<noise_source> noise{};           ///< noisy scores add noise only when it is given
  vector_view<const index_t> token_ids{};        ///< [T] vocabulary ids, for hash selection
  vector_view<const index_t> sequence_offsets{}; ///< [S+1] where sequences begin, for losses per sequence
  router_trace<T>* previous = nullptr;           ///< the previous layer's routing, for gates with residual
  /// [T×d_router] what the router reads in place of x, for routers that say so (routing::own_input); others refuse it.
  matrix_view<const T> router_x{};
  /// [T] 0 where a token is padding; empty: all tokens are valid. A padding token gets y = 0, no expert (shared ones
  /// neither), no gradient, and no share in loads, losses, statistics, bias updates and capacity, whatever its values,
  /// NaN included: the others get what they get in a batch without it (in batch selections, too). A pass over padding
  /// may take more of the workspace: see moe_layer::workspace_bytes.
  vector_view<const std::uint8_t> valid{};
  /// The most routed experts that a token keeps of those that the selection chose, 0: all. The most probable ones stay
  /// (probabilities of the trace, ties to the lower id), so top_k<>{k} becomes top_k<>{most_experts}; shared experts do
  /// not count. For routing::router and any_router of one; others refuse it.
  std::size_t most_experts = 0;
};

/// What the router computed for a batch, and where losses leave their gradients.
template <class T> class router_trace {
public:
  router_trace() : router_trace(std::pmr::get_default_resource()) {}
  explicit router_trace(std::pmr::memory_resource* memory)
      : logits_(memory), probabilities_(memory), d_logits_(memory), d_probabilities_(memory), score_saved_(memory),
        d_score_saved_(memory), tokens_per_expert_(memory) {}

  [[nodiscard]] std::size_t tokens() const noexcept { return logits_.rows(); }
  [[nodiscard]] std::size_t expert_count() const noexcept { return logits_.cols(); }

  /// [T×N] router outputs before and after the score function.
  [[nodiscard]] matrix_view<T> logits() noexcept { return logits_.view(); }
  [[nodiscard]] matrix_view<const T> logits() const noexcept { return logits_.view(); }
  [[nodiscard]] matrix_view<T> probabilities() noexcept { return probabilities_.view(); }
  [[nodiscard]] matrix_view<const T> probabilities() const noexcept { return probabilities_.view(); }
  /// False where the score function makes no probabilities (routing::unscored): probabilities() are then the logits,
  /// and a loss on them has no meaning.
  [[nodiscard]] bool has_probabilities() const noexcept { return has_probabilities_; }
  void set_has_probabilities(bool has) noexcept { has_probabilities_ = has; }
  /// [T×S] whatever the score policy needs again in the backward pass.
  [[nodiscard]] matrix_view<T> score_saved() noexcept { return score_saved_.view(); }
  [[nodiscard]] matrix_view<const T> score_saved() const noexcept { return score_saved_.view(); }
  [[nodiscard]] const routing_inputs<T>& inputs() const noexcept { return inputs_; }
  void set_inputs(const routing_inputs<T>& inputs) noexcept {
    inputs_ = inputs;
    padding_ = 0;
    for (const std::uint8_t valid : inputs_.valid)
      padding_ += valid == 0 ? 1 : 0;
  }

  /// False for padding tokens: their logits and probabilities are 0, and losses and statistics leave them out.
  [[nodiscard]] bool is_valid(std::size_t token) const noexcept {
    return inputs_.valid.empty() || inputs_.valid[token] != 0;
  }
  /// Tokens that are not padding: what a mean over the batch divides by.
  [[nodiscard]] std::size_t valid_tokens() const noexcept { return tokens() - padding_; }
  /// Whether an expert is out of service for a token: its logit is −∞ (routing::non_finite::exclude). Its probability
  /// is then 0.
  [[nodiscard]] bool is_excluded(std::size_t token, std::size_t expert) const noexcept {
    return logits_(token, expert) == -std::numeric_limits<T>::infinity();
  }
  /// The number of experts that some valid token may get: N, less those that are out of service for all. It is what a
  /// balance over experts divides by. N without valid tokens.
  [[nodiscard]] std::size_t experts_in_service() const noexcept {
    std::size_t count = 0;
    for (std::size_t e = 0; e < expert_count(); ++e)
      count += is_in_service(e) ? 1 : 0;
    return count;
  }
  /// Whether some valid token may get this expert; true without valid tokens.
  [[nodiscard]] bool is_in_service(std::size_t expert) const noexcept {
    for (std::size_t t = 0; t < tokens(); ++t)
      if (is_valid(t) && !is_excluded(t, expert))
        return true;
    return valid_tokens() == 0;
  }

  /// [N] how many tokens selected each expert.
  [[nodiscard]] vector_view<index_t> tokens_per_expert() noexcept { return tokens_per_expert_.view(); }
  [[nodiscard]] vector_view<const index_t> tokens_per_expert() const noexcept { return tokens_per_expert_.view(); }

  /// [T×N] gradient sinks: auxiliary losses add ∂L/∂logits and ∂L/∂probabilities here, the router's backward pass
  /// reads them. Empty in a trace made for inference.
  [[nodiscard]] matrix_view<T> d_logits() noexcept { return d_logits_.view(); }
  [[nodiscard]] matrix_view<T> d_probabilities() noexcept { return d_probabilities_.view(); }
  [[nodiscard]] matrix_view<const T> d_logits() const noexcept { return d_logits_.view(); }
  [[nodiscard]] matrix_view<const T> d_probabilities() const noexcept { return d_probabilities_.view(); }
  /// [T×S] sink for losses on score_saved(), for scores that document its layout (routing::noisy): ∂L/∂(saved value)
  /// with the logits held constant.
  [[nodiscard]] matrix_view<T> d_score_saved() noexcept { return d_score_saved_.view(); }
  [[nodiscard]] matrix_view<const T> d_score_saved() const noexcept { return d_score_saved_.view(); }

  void resize(std::size_t tokens, std::size_t expert_count, std::size_t score_saved_per_token, bool with_gradients) {
    resize_for_overwrite(tokens, expert_count, score_saved_per_token, with_gradients);
    tokens_per_expert_.fill(0);
    if (with_gradients)
      clear_gradients();
  }
  /// The same without writing anything.
  void resize_for_overwrite(std::size_t tokens, std::size_t expert_count, std::size_t score_saved_per_token,
                            bool with_gradients) {
    score_saved_.resize_for_overwrite(tokens, score_saved_per_token);
    logits_.resize_for_overwrite(tokens, expert_count);
    probabilities_.resize_for_overwrite(tokens, expert_count);
    tokens_per_expert_.resize_for_overwrite(expert_count);
    if (with_gradients) {
      d_logits_.resize_for_overwrite(tokens, expert_count);
      d_probabilities_.resize_for_overwrite(tokens, expert_count);
      d_score_saved_.resize_for_overwrite(tokens, score_saved_per_token);
    }
  }
  void clear_gradients() noexcept {
    d_logits_.set_zero();
    d_probabilities_.set_zero();
    d_score_saved_.set_zero();
  }

private:
  matrix<T> logits_, probabilities_, d_logits_, d_probabilities_, score_saved_, d_score_saved_;
  buffer<index_t> tokens_per_expert_;
  routing_inputs<T> inputs_;
  std::size_t padding_ = 0;
  bool has_probabilities_ = true;
};

/// All that an auxiliary loss or a statistic may look at.
template <class T> struct routed_batch {
  router_trace<T>& trace;
  const assignment<T>& assigned;
  vector_view<const std::size_t> widths; ///< [N] hidden width of each routed expert
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
