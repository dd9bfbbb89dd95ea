// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>
#include <hmoe/parallel/across_shared_memory.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/parallel_memory.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/row_exchange.hpp>
#include <hmoe/parallel/rows_in_place.hpp>
#include <hmoe/parallel/shared_memory.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <memory_resource>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

/// The experts of a layer on several ranks, each with tokens of its own: each rank runs the layer on its part of the
/// batch at the same time, and the experts that the placement gives it on the rows that all ranks send.
///   x ─ rows, once to each rank that needs them ─▶ experts there, by the inner strategy ─ results ─▶ combine ─▶ y
/// Results are added up at the token's rank in ascending order of experts, so y, dx and the gradients of the weights
/// have the same bits as with the inner strategy in one process, for any number of ranks and any placement (backends
/// that promise this within a process). Gradients are added to those of the experts that this rank has; for an expert
/// without replicas they have the bits that one process gets for the ranks' batches one after the other. The context
/// needs memory for the rows that come in: workspace_bytes announces what suffices when every rank has a batch of that
/// size and all of it goes to one, or as many rows as most_rows says. Passes are collective. The inner strategy must
/// not drop entries. Chunks that overlap change no bit. In inference they are of tokens, so that an expert's weights
/// are read once for each chunk, and a row travels once; in training of experts, whose gradients are then sums over all
/// rows, and a row travels once for each chunk that needs it on a rank.
///
/// One rank runs the inner strategy on its tokens. Where ranks share memory (communicators::shared_memory) and there is
/// one chunk, no rows are sent forward: experts read them, and tokens the results, where they are. For that a rank
/// takes the bytes of its tokens and of its experts' results, and a quarter more, in shared memory, outside the
/// workspace, once for all layers of a communicator. A batch for which the machine has too little of it goes by
/// messages.
template <communicator Communicator, class Inner = sorted<>>
class expert_parallel : public across_shared_memory<Communicator, Inner> {
  using base = across_shared_memory<Communicator, Inner>;
  using base::assign;
  using base::begin_rows;
  using base::chunks_;
  using base::combine;
  using base::inner_;
  using base::most_of;
  using base::placed_;
  using base::ranks_;
  using base::values_of;

public:
  using base::most_chunks;

  /// Collective: hmoe::error on every rank where the placements or the numbers of chunks differ, or a placement is for
  /// another number of ranks; and for a number of chunks that is not 1 to most_chunks.
  expert_parallel(Communicator ranks, expert_placement placed, Inner inner = {}, overlap chunks = {},
                  most_rows limit = {})
      : base("expert_parallel", std::move(ranks), std::move(placed), std::move(inner), chunks.chunks,
             limit.of_experts) {
    std::vector<std::size_t> experts(ranks_.size(), 0), next(ranks_.size(), 0);
    for (std::size_t e = 0; e < placed_.experts(); ++e)
      for (const replica& r : placed_.replicas(e))
        ++experts[r.rank];
    for (std::size_t e = 0; e < placed_.experts(); ++e)
      for (const replica& r : placed_.replicas(e))
        parts_.push_back({r.rank, next[r.rank]++ * chunks_ / experts[r.rank]});
    for (std::size_t e = 0, i = 0; e < placed_.experts(); i += placed_.replicas(e++).size())
      first_parts_.push_back(i);
  }
  /// The same with another placement. Collective.
  [[nodiscard]] expert_parallel with_placement(expert_placement placed) const {
    return {ranks_, std::move(placed), inner_, overlap{chunks_}, most_rows{this->most_rows_}};
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    this->run_pass([&] { run_forward(ctx, experts, x, y, tape); });
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    this->run_pass([&] { run_backward(ctx, experts, tape, dy, dx, d_weights, gradients); });
  }

  template <class Experts> [[nodiscard]] std::size_t slots(const Experts& experts, const batch_limits& limits) const {
    return alone() ? inner_.slots(experts, limits) : base::slots(experts, limits);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (alone())
      return inner_.lay_out_forward(dry, experts, tape, limits);
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    std::pmr::memory_resource* own = &dry.workspace();
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    const bool parts = tape.recording(), on_input = tape.weights_on_input();
    const std::size_t d = experts.d_model(), count = ranks_.size();
    // Of a chunk: tokens, and entries where each of them has as many as there can be.
    const std::size_t tokens = parts ? limits.tokens : (limits.tokens + chunks_ - 1) / chunks_;
    const std::size_t each = limits.tokens == 0 ? 0 : (limits.entries + limits.tokens - 1) / limits.tokens;
    const std::size_t entries = std::min(limits.entries, tokens * each);
    // What comes to this rank comes in any of the parts, or of the chunks where there is a limit to it: all is counted
    // to the first, and a row to each of the others for the cache lines that their arrays begin.
    const std::size_t all = parts ? limits.entries * count : entries * count * chunks_;
    const bool any_chunk = parts || most_of(all) < all;
    std::array<std::optional<detail::parallel_memory<T>>, most_chunks> memory;
    rows_in_place<T> in_place(own);
    std::array<std::optional<detail::parallel_forward_memory<T>>, most_chunks> rows;
    for (std::size_t i = 0; i < chunks_; ++i) {
      const bool first = i == 0 || !any_chunk;
      const std::size_t in = first ? most_of(any_chunk ? all : entries * count) : std::min<std::size_t>(all, 1);
      const std::size_t rows_in = std::min(in, rows_of_parts((any_chunk ? limits.tokens : tokens) * count, parts));
      memory[i].emplace(parts ? &not_of_this : own, parts);
      memory[i]->exchange.lay_out(count, tokens, entries, rows_in, in, own);
      memory[i]->results.resize_for_overwrite(entries, d);
      // What goes out of a rank goes in any of the parts, too.
      const std::size_t most_out = parts && i != 0 ? 1 : entries;
      rows[i].emplace(own, std::min({rows_of_parts(tokens * count, parts), entries, most_out}), rows_in, in, d, true,
                      !parts, on_input ? std::min(entries, most_out) : 0, on_input ? in : 0);
      memory[i]->inner.assignment().reserve(in, in);
      if (chunks_ == 1)
        in_place.lay_out(in, entries, on_input);
    }
    const std::size_t in = most_of(entries * count);
    inner_.lay_out_forward(dry, experts, memory[0]->inner, batch_limits{in, in, experts.size(), false});
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (alone())
      return inner_.lay_out_backward(dry, experts, tape, limits);
    this->lay_out_meeting(&dry.workspace());
    const std::size_t count = ranks_.size(), in = most_of(limits.entries * count), d = experts.d_model();
    const std::size_t all_rows = rows_of_parts(limits.tokens * count, true);
    const std::size_t rows_out = std::min(all_rows, limits.entries), rows_in = std::min(all_rows, in);
    std::array<std::optional<detail::parallel_backward_memory<T>>, most_chunks> memory;
    // As in lay_out_forward: all is counted to the first part.
    for (std::size_t i = 0; i < chunks_; ++i) {
      const auto of_part = [&](std::size_t all) { return i == 0 ? all : std::min<std::size_t>(all, 1); };
      memory[i].emplace(&dry.workspace(), of_part(rows_out), of_part(rows_in), of_part(in), of_part(limits.entries), d,
                        tape.weights_on_input());
    }
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    hmoe::tape<T> inner(&not_of_this, true);
    inner_.lay_out_backward(dry, experts, inner, batch_limits{in, in, experts.size(), false});
  }

private:
  static constexpr std::size_t every_part = most_chunks;
  template <class T> struct chunk;

  /// One rank that needs no chunks runs the inner strategy on its tokens as they are.
  [[nodiscard]] bool alone() const noexcept { return ranks_.size() == 1 && chunks_ == 1; }
  /// A row goes to a rank once for each part.
  [[nodiscard]] std::size_t rows_of_parts(std::size_t rows, bool parts) const noexcept {
    return parts ? rows * chunks_ : rows;
  }
  /// The part of the experts of a rank that has e.
  [[nodiscard]] std::size_t part_of(std::size_t e, std::size_t rank) const noexcept {
    std::size_t i = first_parts_[e];
    while (parts_[i].rank != rank)
      ++i;
    return parts_[i].part;
  }

  template <execution_context Context, class Experts, class T>
  void run_forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
                   tape<T>& tape) const {
    this->check_experts(experts);
    if (alone()) {
      this->allowance().take(0, tape.assignment().size());
      return inner_.forward(ctx, experts, x, y, tape);
    }
    build_plan(ctx, experts, tape);
    if (tape.recording())
      tape.template kept<detail::parallel_parts<T>>().parts.resize(chunks_);
    if (chunks_ == 1 && communicators::share_memory(ranks_)) {
      const typename Context::workspace_scope scope(ctx.workspace());
      detail::parallel_memory<T> of_inference(&ctx.workspace(), false);
      detail::parallel_memory<T>& kept =
          tape.recording() ? tape.template kept<detail::parallel_parts<T>>().parts[0] : of_inference;
      if (this->forward_in_place(ctx, experts, x, y, tape, kept))
        return;
    }
    std::array<chunk<T>, most_chunks> chunks;
    for (std::size_t i = 0; i < chunks_; ++i) {
      if (tape.recording()) {
        chunks[i].kept = &tape.template kept<detail::parallel_parts<T>>().parts[i];
        chunks[i].tokens = {0, x.rows()};
        chunks[i].part = i;
        continue;
      }
      chunks[i].own.emplace(&ctx.workspace(), false);
      chunks[i].kept = &*chunks[i].own;
      chunks[i].tokens = {x.rows() * i / chunks_, x.rows() * (i + 1) / chunks_};
    }
    forward_chunks(ctx, experts, x, y, tape, std::span(chunks).first(chunks_));
  }

  template <execution_context Context, class Experts, class T>
  void run_backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy,
                    matrix_view<T> dx, vector_view<T> d_weights, Experts& gradients) const {
    if (alone())
      return inner_.backward(ctx, experts, tape, dy, dx, d_weights, gradients);
    auto& kept = tape.template kept<detail::parallel_parts<T>>().parts;
    const auto& assigned = std::as_const(tape).assignment();
    const bool on_input = tape.weights_on_input();
    std::array<chunk<T>, most_chunks> all;
    const std::span<chunk<T>> chunks = std::span(all).first(kept.size());
    for (std::size_t i = 0; i < kept.size(); ++i) {
      chunks[i].kept = &kept[i];
      const row_exchange& exchange = kept[i].exchange;
      chunks[i].backward.emplace(&ctx.workspace(), exchange.tokens_out().size(), exchange.rows_in_total(),
                                 exchange.experts_in().size(), exchange.results().size(), dy.cols(), on_input);
    }
    this->meet_backward(dy.cols(), sizeof(T), &ctx.workspace());
    for (chunk<T>& c : chunks)
      if (!on_input) {
        const row_exchange& exchange = c.kept->exchange;
        for (std::size_t i = 0; i < exchange.results().size(); ++i)
          c.backward->weights_out[i] = assigned.weights()[exchange.results()[i]];
        ranks_.template all_to_all<T>(detail::span_of(c.backward->weights_out), exchange.entries_out(),
                                      detail::span_of(c.backward->weights_in), exchange.entries_in());
      }
    std::exception_ptr failed;
    for (chunk<T>& c : chunks)
      c.rows.emplace(begin_rows(ctx, c.kept->exchange, dy, c.backward->rows_out.view(), c.backward->rows_in,
                                probes::direction::backward, failed));
    for (chunk<T>& c : chunks) {
      c.rows->finish();
      const typename Context::workspace_scope scope(ctx.workspace());
      if (failed == nullptr)
        failed = exception_of([&] { run_backward(ctx, experts, on_input, c, gradients); });
      c.results.emplace(ranks_.template begin_all_to_all<T>(values_of(c.backward->d_in), c.kept->exchange.entries_in(),
                                                            values_of(c.backward->d_results),
                                                            c.kept->exchange.entries_out(), dy.cols()));
    }
    for (chunk<T>& c : chunks)
      c.results->finish();
    if (failed != nullptr)
      std::rethrow_exception(failed);

    // From here all is of this rank's tokens.
    hmoe::for_each_row(ctx, dy.rows(), [&](std::size_t t) {
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        chunk<T>& c = chunk_of(chunks, a);
        const std::size_t place = c.kept->exchange.result_of()[a];
        if (!on_input) {
          d_weights[a] = rows::dot(ctx.backend(), dy.row(t), std::as_const(c.kept->results).row(place));
          continue;
        }
        const vector_view<const T> row = std::as_const(c.backward->d_results).row(place);
        d_weights[a] = rows::dot(ctx.backend(), row, std::as_const(tape).input().row(t));
        rows::copy_scaled(ctx.backend(), assigned.weights()[a], row, c.backward->d_results.row(place));
      }
    });
    combine(
        ctx, assigned, dx, {0, dx.rows()}, [](std::size_t) { return T(1); },
        [&](std::size_t a) {
          const chunk<T>& c = chunk_of(chunks, a);
          return std::as_const(c.backward->d_results).row(c.kept->exchange.result_of()[a]);
        },
        probes::direction::backward);
  }
  /// ∂L/∂output of the rows that came in, and through the experts.
  template <execution_context Context, class Experts, class T>
  void run_backward(const Context& ctx, const Experts& experts, bool on_input, chunk<T>& c, Experts& gradients) const {
    const row_exchange& exchange = c.kept->exchange;
    detail::parallel_backward_memory<T>& memory = *c.backward;
    hmoe::for_each_row(ctx, exchange.experts_in().size(), [&](std::size_t i) {
      const auto from = std::as_const(memory.rows_in).row(exchange.rows_of_results_in()[i]);
      if (on_input)
        std::ranges::copy(from, memory.d_out.row(i).begin());
      else
        rows::copy_scaled(ctx.backend(), memory.weights_in[i], from, memory.d_out.row(i));
    });
    inner_.backward(ctx, experts, c.kept->inner, std::as_const(memory.d_out).view(), memory.d_in.view(),
                    memory.unused.view(), gradients);
  }
  /// The part that has the result of an entry.
  template <class T> [[nodiscard]] static chunk<T>& chunk_of(std::span<chunk<T>> chunks, std::size_t entry) noexcept {
    std::size_t i = 0;
    while (chunks[i].kept->exchange.result_of()[entry] == no_index)
      ++i;
    return chunks[i];
  }

  /// What is under way for some tokens, or for some experts of each rank.
  template <class T> struct chunk {
    using operation = decltype(std::declval<const Communicator&>().template begin_all_to_all<T>(
        std::span<const T>{}, std::span<const std::size_t>{}, std::span<T>{}, std::span<const std::size_t>{},
        std::size_t{}));

    std::optional<detail::parallel_memory<T>> own; ///< where no tape keeps it
    std::optional<detail::parallel_forward_memory<T>> memory;
    std::optional<detail::parallel_backward_memory<T>> backward;
    std::optional<operation> rows, results;
    detail::parallel_memory<T>* kept = nullptr;
    matrix<T>* input = nullptr;  ///< what experts read
    bool spread = false;         ///< rows are copied to there from where they came in
    std::exception_ptr failed{}; ///< this rank goes on, as others wait for it, and throws at the end
    row_exchange::token_range tokens{0, 0};
    std::size_t part = every_part;
  };

  /// Tells the other ranks, and makes room.
  template <execution_context Context, class T>
  void prepare(const Context& ctx, const tape<T>& tape, std::size_t d, row_exchange::allowance& allowed,
               chunk<T>& c) const {
    const auto& assigned = tape.assignment();
    const bool on_input = tape.weights_on_input();
    row_exchange& exchange = c.kept->exchange;
    std::size_t in = 0, results = 0;
    const auto wanted = [&](std::size_t e, std::size_t rank) {
      return c.part == every_part || part_of(e, rank) == c.part;
    };
    const auto make_room = [&] {
      in = exchange.experts_in().size();
      results = exchange.results().size();
      // Where each row that comes in is for one expert, and not to be scaled, it is what that expert reads.
      c.spread = on_input || in != exchange.rows_in_total();
      c.memory.emplace(&ctx.workspace(), exchange.tokens_out().size(), exchange.rows_in_total(), in, d, c.spread,
                       !tape.recording(), on_input ? results : 0, on_input ? in : 0);
      c.input = tape.recording() ? &c.kept->inner.input() : &c.memory->input;
      c.input->resize_for_overwrite(in, d);
      c.kept->results.resize_for_overwrite(results, d);
    };
    c.failed = this->exchange_counts(exchange, assigned, tape.plan(), c.tokens, d, &ctx.workspace(), allowed, make_room,
                                     wanted);
    if (!on_input)
      return;
    for (std::size_t i = 0; i < results; ++i)
      c.memory->weights_out[i] = assigned.weights()[exchange.results()[i]];
    ranks_.template all_to_all<T>(detail::span_of(c.memory->weights_out), exchange.entries_out(),
                                  detail::span_of(c.memory->weights_in), exchange.entries_in());
  }

  /// Runs the experts on the rows that came in.
  template <execution_context Context, class Experts, class T>
  void run(const Context& ctx, const Experts& experts, bool on_input, chunk<T>& c) const {
    const row_exchange& exchange = c.kept->exchange;
    if (c.spread)
      hmoe::for_each_row(ctx, exchange.experts_in().size(), [&](std::size_t i) {
        const auto from = std::as_const(c.memory->rows_in).row(exchange.rows_of_results_in()[i]);
        if (on_input)
          rows::copy_scaled(ctx.backend(), c.memory->weights_in[i], from, c.input->row(i));
        else
          std::ranges::copy(from, c.input->row(i).begin());
      });
    assign(exchange, c.kept->inner);
    inner_.forward(ctx, experts, std::as_const(*c.input).view(), c.memory->out.view(), c.kept->inner);
  }

  /// Chunk by chunk: while the experts of one are run, rows of the next ones come and results of those before leave.
  template <execution_context Context, class Experts, class T>
  void forward_chunks(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
                      tape<T>& tape, std::span<chunk<T>> chunks) const {
    const auto& assigned = std::as_const(tape).assignment();
    const bool on_input = tape.weights_on_input();
    row_exchange::allowance allowed = this->allowance();
    for (chunk<T>& c : chunks)
      prepare(ctx, std::as_const(tape), x.cols(), allowed, c);
    for (chunk<T>& c : chunks)
      c.rows.emplace(begin_rows(ctx, c.kept->exchange, x, c.memory->rows_out.view(),
                                c.spread ? c.memory->rows_in : *c.input, probes::direction::forward, c.failed));
    std::exception_ptr failed;
    for (chunk<T>& c : chunks) {
      c.rows->finish();
      const typename Context::workspace_scope scope(ctx.workspace());
      if (failed == nullptr)
        failed = c.failed != nullptr ? c.failed : exception_of([&] { run(ctx, experts, on_input, c); });
      c.results.emplace(ranks_.template begin_all_to_all<T>(values_of(c.memory->out), c.kept->exchange.entries_in(),
                                                            values_of(c.kept->results), c.kept->exchange.entries_out(),
                                                            x.cols()));
    }
    const auto weight = [&](std::size_t a) { return on_input ? T(1) : assigned.weights()[a]; };
    for (chunk<T>& c : chunks) {
      c.results->finish();
      const std::size_t first = assigned.offsets()[c.tokens.first];
      if (failed == nullptr && c.part == every_part)
        combine(
            ctx, assigned, y, c.tokens, weight,
            [&](std::size_t a) { return std::as_const(c.kept->results).row(c.kept->exchange.result_of()[a - first]); },
            probes::direction::forward);
    }
    if (failed == nullptr && tape.recording())
      combine(
          ctx, assigned, y, {0, x.rows()}, weight,
          [&](std::size_t a) {
            const chunk<T>& c = chunk_of(chunks, a);
            return std::as_const(c.kept->results).row(c.kept->exchange.result_of()[a]);
          },
          probes::direction::forward);
    if (failed != nullptr)
      std::rethrow_exception(failed);
    tape.expert_output().resize_for_overwrite(0, x.cols()); // they are in `kept`, by the order in which they came back
  }

  struct part_of_replica {
    std::size_t rank, part;
  };

  std::vector<part_of_replica> parts_;   ///< of every replica, expert after expert
  std::vector<std::size_t> first_parts_; ///< [experts] where they begin
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
