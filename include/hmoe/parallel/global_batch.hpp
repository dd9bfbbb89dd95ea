// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/failure.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace hmoe::parallel {

/// The routing of all ranks' tokens as one batch, rank after rank: what losses, accumulators and controllers look at to
/// see, bit for bit, what one process with the whole batch sees. On each rank it takes memory, and brings messages, for
/// all tokens: 2N + S values for each, N routed experts and S saved values of the score, and its entries. Where that is
/// too much, counts alone do for losses::global_load_balance and biases (training::summed_over). One object per layer;
/// its memory is used again.
template <class T> class global_batch {
public:
  /// Collective. hmoe::error on every rank where these differ in experts or in saved values. routing_inputs: `valid`
  /// and `sequence_offsets` are those of all ranks, a rank that gives no sequences having one; `noise` is this rank's;
  /// the other ones are left out. The views that batch() hands out are valid until the next call.
  template <communicator Communicator>
  void gather(const Communicator& ranks, const router_trace<T>& own, const assignment<T>& assigned) {
    const std::vector<counts> of_all = counts_of(ranks, own, assigned);
    counts most{}, total{};
    first_ = 0;
    for (std::size_t p = 0; p < ranks.size(); ++p) {
      for (const auto member : {&counts::tokens, &counts::entries, &counts::sequences}) {
        most.*member = std::max(most.*member, of_all[p].*member);
        total.*member += of_all[p].*member;
      }
      total.masked = total.masked || of_all[p].masked;
      first_ += p < ranks.rank() ? of_all[p].tokens : 0;
    }
    // Rows of values: logits, probabilities, what the score saved; then weights. Parts are padded to the longest.
    const std::size_t n = own.expert_count(), saved = own.score_saved().cols(), row = 2 * n + saved;
    const std::size_t part = most.tokens * row + most.entries;
    const std::size_t ids = 2 * most.tokens + most.entries + most.sequences;
    communicators::agree(ranks, exception_of([&] {
                           require(total.tokens < no_index && total.entries < no_index, "global_batch: ", total.tokens,
                                   " tokens of all ranks with ", total.entries, " entries are too many for 32-bit ids");
                           own_values_.assign(part, T(0));
                           own_ids_.assign(ids, 0);
                           values_.resize(part * ranks.size());
                           ids_.resize(ids * ranks.size());
                           trace_.resize(total.tokens, n, saved, true);
                           assigned_.reserve(total.tokens, total.entries); // nobody runs out of memory further on
                           assigned_.resize_tokens(total.tokens);
                           valid_.assign(total.masked ? total.tokens : 0, 1);
                           offsets_.reserve(1 + total.sequences + ranks.size());
                           offsets_.assign(1, 0);
                         }),
                         "global_batch");
    write(own, assigned, most);
    ranks.template all_gather<T>(std::span<const T>(own_values_), std::span(values_));
    ranks.template all_gather<index_t>(std::span<const index_t>(own_ids_), std::span(ids_));
    trace_.set_has_probabilities(own.has_probabilities());
    std::size_t first_token = 0;
    for (std::size_t p = 0; p < ranks.size(); ++p) {
      read(of_all[p], most, std::span<const T>(values_).subspan(p * part, part),
           std::span<const index_t>(ids_).subspan(p * ids, ids), first_token, total.sequences != 0);
      first_token += of_all[p].tokens;
    }
    assigned_.sum_counts();
    assigned_.resize_entries();
    std::size_t entry = 0;
    for (std::size_t p = 0; p < ranks.size(); ++p)
      for (std::size_t a = 0; a < of_all[p].entries; ++a, ++entry) {
        const index_t e = ids_[p * ids + 2 * most.tokens + a];
        assigned_.experts()[entry] = e;
        assigned_.weights()[entry] = values_[p * part + most.tokens * row + a];
        if (e < n) // shared experts come behind
          ++trace_.tokens_per_expert()[e];
      }
    routing_inputs<T> inputs;
    inputs.noise = own.inputs().noise;
    inputs.valid = {valid_.data(), valid_.size()};
    if (total.sequences != 0)
      inputs.sequence_offsets = {offsets_.data(), offsets_.size()};
    trace_.set_inputs(inputs);
    assigned_.set_padding(trace_.tokens() - trace_.valid_tokens());
  }

  /// What losses evaluate, load_accumulator adds, and so on. `widths`: of the routed experts, as layer.routing(tape)
  /// has them.
  [[nodiscard]] routed_batch<T> batch(vector_view<const std::size_t> widths) noexcept {
    return {trace_, assigned_, widths};
  }
  [[nodiscard]] const router_trace<T>& trace() const noexcept { return trace_; }
  [[nodiscard]] const assignment<T>& assigned() const noexcept { return assigned_; }
  /// The place of this rank's first token.
  [[nodiscard]] std::size_t first_token() const noexcept { return first_; }

  /// Adds the gradients that losses have left here for this rank's tokens to the sinks of its own trace.
  void return_gradients(router_trace<T>& own) const {
    add(trace_.d_logits(), own.d_logits());
    add(trace_.d_probabilities(), own.d_probabilities());
    add(trace_.d_score_saved(), own.d_score_saved());
  }

private:
  struct counts {
    std::uint64_t tokens = 0, entries = 0, sequences = 0, masked = 0, experts = 0, saved = 0;
  };

  template <communicator Communicator>
  static std::vector<counts> counts_of(const Communicator& ranks, const router_trace<T>& own,
                                       const assignment<T>& assigned) {
    const auto sequences = own.inputs().sequence_offsets;
    const counts mine{own.tokens(),
                      assigned.size(),
                      sequences.empty() ? 0 : sequences.size() - 1,
                      own.inputs().valid.empty() ? 0U : 1U,
                      own.expert_count(),
                      own.score_saved().cols()};
    std::vector<counts> all(ranks.size());
    ranks.template all_gather<counts>(std::span<const counts>(&mine, 1), std::span(all));
    for (std::size_t p = 0; p < all.size(); ++p)
      require(all[p].experts == all[0].experts && all[p].saved == all[0].saved, "global_batch: rank ", p, " routes to ",
              all[p].experts, " experts with ", all[p].saved, " saved values per token, rank 0 to ", all[0].experts,
              " with ", all[0].saved);
    return all;
  }
  void write(const router_trace<T>& own, const assignment<T>& assigned, const counts& most) {
    auto value = own_values_.begin();
    for (std::size_t t = 0; t < own.tokens(); ++t)
      for (const auto& of : {own.logits(), own.probabilities(), own.score_saved()})
        value = std::copy(of.row(t).begin(), of.row(t).end(), value);
    value +=
        static_cast<std::ptrdiff_t>((most.tokens - own.tokens()) * (2 * own.expert_count() + own.score_saved().cols()));
    std::copy_n(assigned.weights().begin(), assigned.size(), value);
    for (std::size_t t = 0; t < own.tokens(); ++t) {
      own_ids_[t] = assigned.offsets()[t + 1] - assigned.offsets()[t];
      own_ids_[most.tokens + t] = own.is_valid(t) ? 1 : 0;
    }
    const auto ids = own_ids_.begin() + static_cast<std::ptrdiff_t>(2 * most.tokens);
    std::copy_n(assigned.experts().begin(), assigned.size(), ids);
    const auto sequences = own.inputs().sequence_offsets;
    if (!sequences.empty())
      std::copy(sequences.begin() + 1, sequences.end(), ids + static_cast<std::ptrdiff_t>(most.entries));
  }
  /// All of a rank's part but the entries.
  void read(const counts& of, const counts& most, std::span<const T> values, std::span<const index_t> ids,
            std::size_t first_token, bool sequences) {
    auto value = values.begin();
    for (std::size_t t = first_token; t < first_token + of.tokens; ++t)
      for (const auto& to : {trace_.logits(), trace_.probabilities(), trace_.score_saved()}) {
        std::copy_n(value, to.cols(), to.row(t).begin());
        value += static_cast<std::ptrdiff_t>(to.cols());
      }
    for (std::size_t t = 0; t < of.tokens; ++t) {
      assigned_.offsets()[first_token + t + 1] = ids[t];
      if (!valid_.empty())
        valid_[first_token + t] = ids[most.tokens + t] != 0 ? 1 : 0;
    }
    const auto end = [&](std::size_t token) { offsets_.push_back(static_cast<index_t>(first_token + token)); };
    for (std::size_t s = 0; s < of.sequences; ++s)
      end(ids[2 * most.tokens + most.entries + s]);
    if (sequences && of.sequences == 0 && of.tokens != 0)
      end(of.tokens);
  }
  void add(matrix_view<const T> from, matrix_view<T> to) const {
    for (std::size_t t = 0; t < to.rows(); ++t)
      for (std::size_t i = 0; i < to.cols(); ++i)
        to(t, i) += from(first_ + t, i);
  }

  router_trace<T> trace_;
  assignment<T> assigned_;
  std::vector<std::uint8_t> valid_;
  std::vector<index_t> offsets_; ///< of sequences
  std::size_t first_ = 0;
  std::vector<T> own_values_, values_;
  std::vector<index_t> own_ids_, ids_;
};

/// Collective: the losses of an objective over the tokens of all ranks, as objective.evaluate(layer, tape) has them in
/// one process with the whole batch: the same values on every rank, and the gradients of this rank's tokens in its
/// tape. `all` keeps the batch, for controllers. Gradients of the router are then summed with the others
/// (training::sum_gradients).
template <communicator Communicator, class Objective, class Layer, class T>
auto evaluate(const Communicator& ranks, const Objective& objective, const Layer& layer, tape<T>& recorded,
              global_batch<T>& all) {
  std::vector<std::size_t> widths;
  communicators::agree(ranks, exception_of([&] {
                         const auto own = layer.routing(recorded).widths;
                         widths.assign(own.begin(), own.end());
                       }),
                       "evaluate");
  all.gather(ranks, std::as_const(recorded).trace(), std::as_const(recorded).assignment());
  auto batch = all.batch({widths.data(), widths.size()});
  auto report = objective.evaluate(batch);
  all.return_gradients(recorded.trace());
  return report;
}

} // namespace hmoe::parallel

#include <hmoe/core/macros_on.hpp>
