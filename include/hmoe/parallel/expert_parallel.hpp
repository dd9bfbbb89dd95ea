// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>
#include <hmoe/parallel/across_ranks.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/row_exchange.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <memory_resource>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

namespace hmoe::dispatch {

namespace detail {

/// What a rank keeps of a pass for its experts' part.
template <class T> struct parallel_memory {
  parallel_memory() : inner(std::pmr::get_default_resource(), true) {}
  parallel_memory(std::pmr::memory_resource* memory, bool recording)
      : exchange(memory), inner(memory, recording), results(memory) {}

  row_exchange exchange;
  tape<T> inner;     ///< a token for each result of this rank's experts: its row, one expert, weight 1
  matrix<T> results; ///< [results×d] what experts returned for the entries of this rank's tokens
};

} // namespace detail

/// The tokens of a rank in so many chunks of nearly the same number: rows of the next chunks travel while the experts
/// of one are run.
struct overlap {
  std::size_t chunks = 1;
};

/// The experts of a layer on several ranks, each with tokens of its own: each rank runs the layer on its part of the
/// batch at the same time, and the experts that the placement gives it on the rows that all ranks send.
///   x ─ rows, once to each rank that needs them ─▶ experts there, by the inner strategy ─ results ─▶ combine ─▶ y
/// Results are added up at the token's rank in ascending order of experts, so y, dx and the gradients of the weights
/// have the same bits as with the inner strategy in one process, for any number of ranks and any placement (backends
/// that promise this within a process). Gradients are added to those of the experts that this rank has; for an expert
/// without replicas they have the bits that one process gets for the ranks' batches one after the other. The context
/// needs memory for the rows that come in: workspace_bytes announces what suffices when every rank has a batch of that
/// size and all of it goes to one. Passes are collective. The inner strategy must not drop entries. Chunks that overlap
/// change no bit; they are for inference, where an expert's weights are read once for each chunk. Training goes in one.
template <communicator Communicator, class Inner = sorted<>>
class expert_parallel : public across_ranks<Communicator, Inner> {
  using base = across_ranks<Communicator, Inner>;
  using base::begin_rows;
  using base::inner_;
  using base::placed_;
  using base::ranks_;
  using base::send_rows;
  using base::values_of;

public:
  static constexpr std::size_t most_chunks = 7;

  /// Collective: hmoe::error on every rank where the placements or the numbers of chunks differ, or a placement is for
  /// another number of ranks; and for a number of chunks that is not 1 to most_chunks.
  expert_parallel(Communicator ranks, expert_placement placed, Inner inner = {}, overlap chunks = {})
      : base(std::move(ranks), std::move(placed), std::move(inner), chunks.chunks), chunks_(chunks.chunks) {
    require(chunks_ != 0 && chunks_ <= most_chunks, "expert_parallel: ", chunks_, " chunks of tokens: 1 to ",
            most_chunks, " are possible");
  }
  /// The same with another placement. Collective.
  [[nodiscard]] expert_parallel with_placement(expert_placement placed) const {
    return {ranks_, std::move(placed), inner_, overlap{chunks_}};
  }
  /// In how many chunks of tokens inference communicates and computes.
  [[nodiscard]] std::size_t chunks() const noexcept { return chunks_; }

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

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    std::pmr::memory_resource* own = &dry.workspace();
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    const std::size_t chunks = tape.recording() ? 1 : chunks_, d = experts.d_model(), count = ranks_.size();
    // Of a chunk: tokens, and entries where each of them has as many as there can be.
    const std::size_t tokens = (limits.tokens + chunks - 1) / chunks;
    const std::size_t each = limits.tokens == 0 ? 0 : (limits.entries + limits.tokens - 1) / limits.tokens;
    const std::size_t entries = std::min(limits.entries, tokens * each), in = entries * count;
    std::array<std::optional<detail::parallel_memory<T>>, most_chunks> memory;
    std::array<std::optional<forward_memory<T>>, most_chunks> rows;
    for (std::size_t i = 0; i < chunks; ++i) {
      memory[i].emplace(tape.recording() ? &not_of_this : own, tape.recording());
      memory[i]->exchange.lay_out(count, tokens, entries, own);
      memory[i]->results.resize_for_overwrite(entries, d);
      rows[i].emplace(own, std::min(tokens * count, entries), tokens * count, in, d, true, !tape.recording(), in);
    }
    memory[0]->inner.assignment().reserve(in, in);
    inner_.lay_out_forward(dry, experts, memory[0]->inner, batch_limits{in, in, experts.size(), false});
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    this->lay_out_meeting(&dry.workspace());
    const std::size_t count = ranks_.size(), in = limits.entries * count, rows_in = limits.tokens * count;
    const backward_memory<T> memory(&dry.workspace(), std::min(rows_in, limits.entries), rows_in, in, limits.entries,
                                    experts.d_model(), tape.weights_on_input());
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    hmoe::tape<T> inner(&not_of_this, true);
    inner_.lay_out_backward(dry, experts, inner, batch_limits{in, in, experts.size(), false});
  }

private:
  template <execution_context Context, class Experts, class T>
  void run_forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
                   tape<T>& tape) const {
    this->check_experts(experts);
    build_plan(ctx, experts, tape);
    if (tape.recording()) {
      chunk<T> all;
      all.kept = &tape.template kept<detail::parallel_memory<T>>();
      all.tokens = {0, x.rows()};
      forward_chunks(ctx, experts, x, y, tape, std::span(&all, 1));
      return;
    }
    std::array<chunk<T>, most_chunks> chunks;
    for (std::size_t i = 0; i < chunks_; ++i) {
      chunks[i].own.emplace(&ctx.workspace(), false);
      chunks[i].kept = &*chunks[i].own;
      chunks[i].tokens = {x.rows() * i / chunks_, x.rows() * (i + 1) / chunks_};
    }
    forward_chunks(ctx, experts, x, y, tape, std::span(chunks).first(chunks_));
  }

  template <execution_context Context, class Experts, class T>
  void run_backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy,
                    matrix_view<T> dx, vector_view<T> d_weights, Experts& gradients) const {
    detail::parallel_memory<T>& kept = tape.template kept<detail::parallel_memory<T>>();
    const row_exchange& exchange = kept.exchange;
    const auto& assigned = std::as_const(tape).assignment();
    const bool on_input = tape.weights_on_input();
    const std::size_t d = dy.cols(), results = exchange.results().size(), in = exchange.experts_in().size();
    backward_memory<T> memory(&ctx.workspace(), exchange.tokens_out().size(), exchange.rows_in_total(), in, results, d,
                              on_input);
    this->meet_backward(d, sizeof(T), &ctx.workspace());
    send_rows(ctx, exchange, dy, memory.rows_out.view(), memory.rows_in, probes::direction::backward);
    if (!on_input) {
      for (std::size_t i = 0; i < results; ++i)
        memory.weights_out[i] = assigned.weights()[exchange.results()[i]];
      ranks_.template all_to_all<T>(detail::span_of(memory.weights_out), exchange.entries_out(),
                                    detail::span_of(memory.weights_in), exchange.entries_in());
    }
    hmoe::for_each_row(ctx, in, [&](std::size_t i) { // ∂L/∂output
      const auto from = std::as_const(memory.rows_in).row(exchange.rows_of_results_in()[i]);
      if (on_input)
        std::ranges::copy(from, memory.d_out.row(i).begin());
      else
        rows::copy_scaled(ctx.backend(), memory.weights_in[i], from, memory.d_out.row(i));
    });
    const std::exception_ptr failed = exception_of([&] {
      inner_.backward(ctx, experts, kept.inner, std::as_const(memory.d_out).view(), memory.d_in.view(),
                      memory.unused.view(), gradients);
    });
    ranks_.template all_to_all<T>(values_of(memory.d_in), exchange.entries_in(), values_of(memory.d_results),
                                  exchange.entries_out(), d);
    if (failed != nullptr)
      std::rethrow_exception(failed);

    // From here all is of this rank's tokens.
    hmoe::for_each_row(ctx, dy.rows(), [&](std::size_t t) {
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        const std::size_t place = exchange.result_of()[a];
        if (!on_input) {
          d_weights[a] = rows::dot(ctx.backend(), dy.row(t), std::as_const(kept.results).row(place));
          continue;
        }
        const vector_view<const T> row = std::as_const(memory.d_results).row(place);
        d_weights[a] = rows::dot(ctx.backend(), row, std::as_const(tape).input().row(t));
        rows::copy_scaled(ctx.backend(), assigned.weights()[a], row, memory.d_results.row(place));
      }
    });
    combine(
        ctx, exchange, assigned, std::as_const(memory.d_results).view(), dx, {0, dx.rows()},
        [](std::size_t) { return T(1); }, probes::direction::backward);
  }

  template <class T> struct forward_memory {
    forward_memory(std::pmr::memory_resource* memory, std::size_t rows_out_count, std::size_t rows_in_count,
                   std::size_t results_in, std::size_t d, bool spread, bool own_input, std::size_t weights)
        : rows_out(matrix<T>::for_overwrite(rows_out_count, d, memory)),
          rows_in(matrix<T>::for_overwrite(spread ? rows_in_count : 0, d, memory)),
          input(matrix<T>::for_overwrite(own_input ? results_in : 0, d, memory)),
          out(matrix<T>::for_overwrite(results_in, d, memory)), weights_out(weights, memory),
          weights_in(weights, memory) {}

    matrix<T> rows_out, rows_in, input, out;
    buffer<T> weights_out, weights_in;
  };
  template <class T> struct backward_memory {
    backward_memory(std::pmr::memory_resource* memory, std::size_t rows_out_count, std::size_t rows_in_count,
                    std::size_t results_in, std::size_t results, std::size_t d, bool on_input)
        : rows_out(matrix<T>::for_overwrite(rows_out_count, d, memory)),
          rows_in(matrix<T>::for_overwrite(rows_in_count, d, memory)),
          d_out(matrix<T>::for_overwrite(results_in, d, memory)), d_in(matrix<T>::for_overwrite(results_in, d, memory)),
          d_results(matrix<T>::for_overwrite(results, d, memory)), weights_out(on_input ? 0 : results, memory),
          weights_in(on_input ? 0 : results_in, memory), unused(results_in, memory) {}

    matrix<T> rows_out, rows_in, d_out, d_in, d_results;
    buffer<T> weights_out, weights_in, unused;
  };

  /// to[t] = Σ over t's entries, experts ascending, of weight(entry) · its result, for these tokens.
  template <execution_context Context, class T, class Weight>
  static void combine(const Context& ctx, const row_exchange& exchange, const assignment<T>& assigned,
                      matrix_view<const T> results, matrix_view<T> to, row_exchange::token_range tokens,
                      const Weight& weight, probes::direction direction) {
    const std::size_t first_entry = assigned.offsets()[tokens.first];
    hmoe::for_each_row(
        ctx, tokens.end - tokens.first,
        [&](std::size_t i) {
          const std::size_t t = tokens.first + i, first = assigned.offsets()[t];
          rows::weighted_sum(
              ctx.backend(), assigned.offsets()[t + 1] - first, [&](std::size_t k) { return weight(first + k); },
              [&](std::size_t k) { return results.row(exchange.result_of()[first - first_entry + k]); }, to.row(t));
        },
        permuted::combined_row<Context>(direction, to, results.rows()));
  }

  /// What is under way for some tokens.
  template <class T> struct chunk {
    using operation = decltype(std::declval<const Communicator&>().template begin_all_to_all<T>(
        std::span<const T>{}, std::span<const std::size_t>{}, std::span<T>{}, std::span<const std::size_t>{},
        std::size_t{}));

    std::optional<detail::parallel_memory<T>> own; ///< where no tape keeps it
    std::optional<forward_memory<T>> memory;
    std::optional<operation> rows, results;
    detail::parallel_memory<T>* kept = nullptr;
    matrix<T>* input = nullptr;  ///< what experts read
    bool spread = false;         ///< rows are copied to there from where they came in
    std::exception_ptr failed{}; ///< this rank goes on, as others wait for it, and throws at the end
    row_exchange::token_range tokens{0, 0};
  };

  /// Tells the other ranks, and makes room.
  template <execution_context Context, class T>
  void prepare(const Context& ctx, const tape<T>& tape, std::size_t d, chunk<T>& c) const {
    const auto& assigned = tape.assignment();
    const bool on_input = tape.weights_on_input();
    row_exchange& exchange = c.kept->exchange;
    std::size_t in = 0, results = 0;
    c.failed = this->exchange_counts(exchange, assigned, tape.plan(), c.tokens, d, &ctx.workspace(), [&] {
      in = exchange.experts_in().size();
      results = exchange.results().size();
      // Where each row that comes in is for one expert, and not to be scaled, it is what that expert reads.
      c.spread = on_input || in != exchange.rows_in_total();
      c.memory.emplace(&ctx.workspace(), exchange.tokens_out().size(), exchange.rows_in_total(), in, d, c.spread,
                       !tape.recording(), on_input ? std::max(in, results) : 0);
      c.input = tape.recording() ? &c.kept->inner.input() : &c.memory->input;
      c.input->resize_for_overwrite(in, d);
      c.kept->results.resize_for_overwrite(results, d);
    });
    if (!on_input)
      return;
    for (std::size_t i = 0; i < results; ++i)
      c.memory->weights_out[i] = assigned.weights()[exchange.results()[i]];
    ranks_.template all_to_all<T>(std::span<const T>(c.memory->weights_out.data(), results), exchange.entries_out(),
                                  std::span<T>(c.memory->weights_in.data(), in), exchange.entries_in());
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
    for (chunk<T>& c : chunks)
      prepare(ctx, std::as_const(tape), x.cols(), c);
    for (chunk<T>& c : chunks)
      c.rows.emplace(begin_rows(ctx, c.kept->exchange, x, c.memory->rows_out.view(),
                                c.spread ? c.memory->rows_in : *c.input, probes::direction::forward));
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
    for (chunk<T>& c : chunks) {
      c.results->finish();
      if (failed == nullptr)
        combine(
            ctx, c.kept->exchange, assigned, std::as_const(c.kept->results).view(), y, c.tokens,
            [&](std::size_t a) { return on_input ? T(1) : assigned.weights()[a]; }, probes::direction::forward);
    }
    if (failed != nullptr)
      std::rethrow_exception(failed);
    tape.expert_output().resize_for_overwrite(0, x.cols()); // they are in `kept`, by the order in which they came back
  }

  /// A token for each result, with one expert and weight 1: what comes out is the expert's output itself.
  template <class T> static void assign(const row_exchange& exchange, tape<T>& inner) {
    const std::size_t in = exchange.experts_in().size();
    auto& assigned = inner.assignment();
    assigned.resize_tokens(in);
    std::iota(assigned.offsets().begin(), assigned.offsets().end(), index_t{0});
    assigned.resize_entries();
    std::ranges::copy(exchange.experts_in(), assigned.experts().begin());
    std::ranges::fill(assigned.weights(), T(1));
  }

  std::size_t chunks_;
};

} // namespace hmoe::dispatch
