// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>

#include "process_group.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace language_model {

/// The routing of all processes' tokens as one batch, so that auxiliary losses and rules of routers see what one
/// process with the whole batch would see. That takes memory for all tokens on each process, which is little here:
/// routers know eight experts, tokens have hundreds of values.
class gathered_batch {
public:
  /// `own` has as many tokens, in sequences of the same lengths, on each process.
  void gather(const process_group& group, const hmoe::router_trace<float>& own, const hmoe::assignment<float>& assigned,
              std::size_t layer_experts) {
    const std::size_t tokens = own.tokens(), ranks = group.size(), n = own.expert_count();
    first_ = group.rank() * tokens;
    trace_.resize(tokens * ranks, n, own.score_saved().cols(), true);
    trace_.set_has_probabilities(own.has_probabilities());
    group.gather(span_of(own.logits()), span_of(trace_.logits()));
    group.gather(span_of(own.probabilities()), span_of(trace_.probabilities()));
    group.gather(span_of(own.score_saved()), span_of(trace_.score_saved()));

    offsets_.assign(1, 0);
    const auto of_one = own.inputs().sequence_offsets;
    for (std::size_t r = 0; r < ranks; ++r)
      for (std::size_t s = 1; s < of_one.size(); ++s)
        offsets_.push_back(static_cast<hmoe::index_t>(r * tokens + of_one[s]));
    hmoe::routing_inputs<float> inputs;
    inputs.sequence_offsets = {offsets_.data(), offsets_.size()};
    trace_.set_inputs(inputs);

    // Which experts each token has: as a table, with no_index behind the last one.
    std::vector<hmoe::index_t> ids(tokens * layer_experts, hmoe::no_index), all_ids(ids.size() * ranks);
    std::vector<float> weights(ids.size()), all_weights(all_ids.size());
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t a = assigned.offsets()[t], i = t * layer_experts; a < assigned.offsets()[t + 1]; ++a, ++i) {
        ids[i] = assigned.experts()[a];
        weights[i] = assigned.weights()[a];
      }
    group.gather(ids, all_ids);
    group.gather(weights, all_weights);
    assigned_.resize_tokens(tokens * ranks);
    for (std::size_t t = 0; t < tokens * ranks; ++t)
      for (std::size_t i = t * layer_experts; i < (t + 1) * layer_experts && all_ids[i] != hmoe::no_index; ++i)
        ++assigned_.offsets()[t + 1];
    assigned_.sum_counts();
    assigned_.resize_entries();
    for (std::size_t t = 0; t < tokens * ranks; ++t)
      for (std::size_t a = assigned_.offsets()[t], i = t * layer_experts; a < assigned_.offsets()[t + 1]; ++a, ++i) {
        assigned_.experts()[a] = all_ids[i];
        assigned_.weights()[a] = all_weights[i];
        if (all_ids[i] < n) // shared experts come behind
          ++trace_.tokens_per_expert()[all_ids[i]];
      }
  }

  hmoe::routed_batch<float> batch(hmoe::vector_view<const std::size_t> widths) { return {trace_, assigned_, widths}; }
  const hmoe::router_trace<float>& trace() const { return trace_; }

  /// Adds the gradients that losses have left here for the process's own tokens.
  void return_gradients(hmoe::router_trace<float>& own) const {
    add(trace_.d_logits(), own.d_logits());
    add(trace_.d_probabilities(), own.d_probabilities());
    add(trace_.d_score_saved(), own.d_score_saved());
  }

private:
  template <class T> static std::span<T> span_of(hmoe::matrix_view<T> view) { return {view.data(), view.size()}; }
  void add(hmoe::matrix_view<const float> from, hmoe::matrix_view<float> to) const {
    for (std::size_t t = 0; t < to.rows(); ++t)
      for (std::size_t i = 0; i < to.cols(); ++i)
        to(t, i) += from(first_ + t, i);
  }

  hmoe::router_trace<float> trace_;
  hmoe::assignment<float> assigned_;
  std::vector<hmoe::index_t> offsets_;
  std::size_t first_ = 0; ///< of the process's own tokens
};

} // namespace language_model
