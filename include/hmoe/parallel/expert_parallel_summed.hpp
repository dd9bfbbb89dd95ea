// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
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
#include <optional>
#include <span>
#include <utility>

namespace hmoe::dispatch {

namespace detail {

template <class T> struct summed_memory {
  summed_memory() : inner(std::pmr::get_default_resource(), true) {}
  summed_memory(std::pmr::memory_resource* memory, bool recording) : exchange(memory), inner(memory, recording) {}

  row_exchange exchange;
  tape<T> inner; ///< the rows that came in, each with its entries on this rank
};

} // namespace detail

/// As expert_parallel, with a cheaper way back: the results of a token on a rank are weighted and added up there, by
/// the inner strategy, and one row comes back. A token's sum is then taken rank by rank, in ascending order, and on
/// each rank in ascending order of experts, and so is dx. So y and dx have the same bits in any batch for the same
/// placement without replicas, and those of one process to rounding; with replicas the batch decides which rank has a
/// part. On one rank they are those of the inner strategy. The gradients of experts are as with expert_parallel.
/// In inference chunks of tokens overlap communication and computation, which changes no bit; in training rows travel
/// together, since experts' gradients are one sum and a token's results on a rank another.
template <communicator Communicator, class Inner = sorted<>>
class expert_parallel_summed : public across_ranks<Communicator, Inner> {
  using base = across_ranks<Communicator, Inner>;
  using base::begin_rows;
  using base::chunks_;
  using base::inner_;
  using base::most_of;
  using base::most_rows_;
  using base::ranks_;
  using base::send_rows;
  using base::values_of;

public:
  using base::most_chunks;

  /// Collective: hmoe::error on every rank where the placements or the numbers of chunks differ, or a placement is for
  /// another number of ranks; and for a number of chunks that is not 1 to most_chunks.
  expert_parallel_summed(Communicator ranks, expert_placement placed, Inner inner = {}, overlap chunks = {},
                         most_rows limit = {})
      : base("expert_parallel_summed", std::move(ranks), std::move(placed), std::move(inner), chunks.chunks,
             limit.of_experts) {}
  /// The same with another placement. Collective.
  [[nodiscard]] expert_parallel_summed with_placement(expert_placement placed) const {
    return {ranks_, std::move(placed), inner_, overlap{chunks_}, most_rows{most_rows_}};
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    this->run_pass([&] {
      this->check_experts(experts);
      build_plan(ctx, experts, tape);
      std::array<chunk<T>, most_chunks> chunks;
      const std::size_t count = chunks_of(tape);
      for (std::size_t i = 0; i < count; ++i) {
        chunks[i].tokens = {x.rows() * i / count, x.rows() * (i + 1) / count};
        chunks[i].kept = tape.recording() ? &tape.template kept<detail::summed_memory<T>>()
                                          : &chunks[i].own.emplace(&ctx.workspace(), false);
      }
      forward_chunks(ctx, experts, x, y, tape, std::span(chunks).first(count));
    });
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
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    std::pmr::memory_resource* own = &dry.workspace();
    const std::size_t count = chunks_of(tape), ranks = ranks_.size(), d = experts.d_model();
    // Of a chunk: tokens, and entries where each of them has as many as there can be.
    const std::size_t each = limits.tokens == 0 ? 0 : (limits.entries + limits.tokens - 1) / limits.tokens;
    const std::size_t tokens = (limits.tokens + count - 1) / count, entries = std::min(limits.entries, tokens * each);
    // With a limit to what comes to this rank, that comes in any chunk: all is counted to the first, and a row to each
    // of the others for the cache lines that their arrays begin.
    const std::size_t all = entries * ranks * count;
    const bool any_chunk = most_of(all) < all;
    std::array<std::optional<detail::summed_memory<T>>, most_chunks> kept;
    std::array<std::optional<memory_of<T>>, most_chunks> memory;
    for (std::size_t i = 0; i < count; ++i) {
      const bool first = i == 0 || !any_chunk;
      const std::size_t in = first ? most_of(any_chunk ? all : entries * ranks) : std::min<std::size_t>(all, 1);
      const std::size_t rows_in = std::min(in, (any_chunk ? limits.tokens : tokens) * ranks);
      kept[i].emplace(tape.recording() ? &not_of_this : own, tape.recording());
      kept[i]->exchange.lay_out(ranks, tokens, entries, rows_in, in, own);
      kept[i]->inner.assignment().reserve(rows_in, in);
      kept[i]->inner.set_weights_on_input(tape.weights_on_input());
      memory[i].emplace(own, std::min(entries, tokens * ranks), rows_in, entries, in, d);
    }
    inner_.lay_out_forward(dry, experts, kept[0]->inner, limits_in(experts, {tokens, entries, 0, false}));
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    this->lay_out_meeting(&dry.workspace());
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    const batch_limits in = limits_in(experts, limits);
    hmoe::tape<T> inner(&not_of_this, true);
    inner.set_weights_on_input(tape.weights_on_input());
    const memory_of<T> memory(&dry.workspace(), std::min(limits.entries, limits.tokens * ranks_.size()), in.tokens,
                              limits.entries, in.entries, experts.d_model());
    inner_.lay_out_backward(dry, experts, inner, in);
  }

private:
  template <execution_context Context, class Experts, class T>
  void run_backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy,
                    matrix_view<T> dx, vector_view<T> d_weights, Experts& gradients) const {
    detail::summed_memory<T>& kept = tape.template kept<detail::summed_memory<T>>();
    const row_exchange& exchange = kept.exchange;
    memory_of<T> memory(&ctx.workspace(), exchange, dy.cols());
    this->meet_backward(dy.cols(), sizeof(T), &ctx.workspace());
    std::exception_ptr failed;
    send_rows(ctx, exchange, dy, memory.rows_out.view(), memory.rows_in, probes::direction::backward, failed);
    if (failed == nullptr)
      failed = exception_of([&] {
        inner_.backward(ctx, experts, kept.inner, std::as_const(memory.rows_in).view(), memory.sums.view(),
                        memory.entries_in.view(), gradients);
      });
    // The rows that went out come back as ∂L/∂x, and the weights as ∂L/∂weight.
    ranks_.template all_to_all<T>(values_of(memory.sums), exchange.rows_in(), values_of(memory.rows_out),
                                  exchange.rows_out(), dy.cols());
    ranks_.template all_to_all<T>(detail::span_of(memory.entries_in), exchange.entries_in(),
                                  detail::span_of(memory.entries_out), exchange.entries_out());
    if (failed != nullptr)
      std::rethrow_exception(failed);
    for (std::size_t i = 0; i < memory.entries_out.size(); ++i)
      d_weights[exchange.results()[i]] = memory.entries_out[i];
    add_up(ctx, exchange, std::as_const(memory.rows_out).view(), dx, {0, dx.rows()}, probes::direction::backward);
  }

  /// Of both passes: what goes out, what comes in, and what experts make of it.
  template <class T> struct memory_of {
    memory_of(std::pmr::memory_resource* memory, std::size_t rows_out_count, std::size_t rows_in_count,
              std::size_t entries_out_count, std::size_t entries_in_count, std::size_t d)
        : rows_out(matrix<T>::for_overwrite(rows_out_count, d, memory)),
          rows_in(matrix<T>::for_overwrite(rows_in_count, d, memory)),
          sums(matrix<T>::for_overwrite(rows_in_count, d, memory)), entries_out(entries_out_count, memory),
          entries_in(entries_in_count, memory) {}
    memory_of(std::pmr::memory_resource* memory, const row_exchange& exchange, std::size_t d)
        : memory_of(memory, exchange.tokens_out().size(), exchange.rows_in_total(), exchange.results().size(),
                    exchange.experts_in().size(), d) {}

    matrix<T> rows_out, rows_in, sums;
    buffer<T> entries_out, entries_in;
  };

  /// Rows of all ranks on this one, as many as it takes.
  template <class Experts>
  [[nodiscard]] batch_limits limits_in(const Experts& experts, const batch_limits& limits) const {
    const std::size_t entries = most_of(limits.entries * ranks_.size());
    return {std::min(entries, limits.tokens * ranks_.size()), entries, experts.size(), false};
  }
  /// Training has one: the gradient of an expert is one sum over all its rows.
  template <class T> [[nodiscard]] std::size_t chunks_of(const tape<T>& tape) const noexcept {
    return tape.recording() ? 1 : chunks_;
  }

  /// What is under way for some tokens.
  template <class T> struct chunk {
    using operation = decltype(std::declval<const Communicator&>().template begin_all_to_all<T>(
        std::span<const T>{}, std::span<const std::size_t>{}, std::span<T>{}, std::span<const std::size_t>{},
        std::size_t{}));

    std::optional<detail::summed_memory<T>> own; ///< where no tape keeps it
    std::optional<memory_of<T>> memory;
    std::optional<operation> rows, results;
    detail::summed_memory<T>* kept = nullptr;
    matrix<T>* input = nullptr;  ///< what experts read
    std::exception_ptr failed{}; ///< this rank goes on, as others wait for it, and throws at the end
    row_exchange::token_range tokens{0, 0};
  };

  /// Tells the other ranks, makes room, and exchanges weights.
  template <execution_context Context, class T>
  void prepare(const Context& ctx, const tape<T>& tape, std::size_t d, row_exchange::allowance& allowed,
               chunk<T>& c) const {
    row_exchange& exchange = c.kept->exchange;
    auto& assigned = c.kept->inner.assignment();
    c.failed =
        this->exchange_counts(exchange, tape.assignment(), tape.plan(), c.tokens, d, &ctx.workspace(), allowed, [&] {
          exchange.index_rows_of_tokens(c.tokens);
          c.memory.emplace(&ctx.workspace(), exchange, d);
          c.input = tape.recording() ? &c.kept->inner.input() : &c.memory->rows_in;
          c.input->resize_for_overwrite(exchange.rows_in_total(), d);
          assigned.reserve(exchange.rows_in_total(), exchange.experts_in().size());
        });
    // Lists that cannot be are not run.
    assigned.resize_tokens(exchange.rows_in_total());
    if (c.failed == nullptr)
      std::ranges::copy(exchange.first_entries_in(), assigned.offsets().begin());
    else
      assigned.offsets()[assigned.tokens()] = static_cast<index_t>(exchange.experts_in().size());
    assigned.resize_entries();
    std::ranges::copy(exchange.experts_in(), assigned.experts().begin());
    for (std::size_t i = 0; i < c.memory->entries_out.size(); ++i)
      c.memory->entries_out[i] = tape.assignment().weights()[exchange.results()[i]];
    ranks_.template all_to_all<T>(detail::span_of(c.memory->entries_out), exchange.entries_out(),
                                  std::span<T>(assigned.weights().data(), assigned.size()), exchange.entries_in());
    c.kept->inner.set_weights_on_input(tape.weights_on_input());
  }

  /// Chunk by chunk: while the experts of one are run, rows of the next ones come and sums of those before leave.
  template <execution_context Context, class Experts, class T>
  void forward_chunks(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
                      tape<T>& tape, std::span<chunk<T>> chunks) const {
    row_exchange::allowance allowed = this->allowance();
    for (chunk<T>& c : chunks)
      prepare(ctx, std::as_const(tape), x.cols(), allowed, c);
    for (chunk<T>& c : chunks)
      c.rows.emplace(begin_rows(ctx, c.kept->exchange, x, c.memory->rows_out.view(), *c.input,
                                probes::direction::forward, c.failed));
    std::exception_ptr failed;
    for (chunk<T>& c : chunks) {
      c.rows->finish();
      const typename Context::workspace_scope scope(ctx.workspace());
      if (failed == nullptr)
        failed = c.failed != nullptr ? c.failed : exception_of([&] {
          inner_.forward(ctx, experts, std::as_const(*c.input).view(), c.memory->sums.view(), c.kept->inner);
        });
      // The rows that went out come back as sums.
      c.results.emplace(ranks_.template begin_all_to_all<T>(values_of(c.memory->sums), c.kept->exchange.rows_in(),
                                                            values_of(c.memory->rows_out), c.kept->exchange.rows_out(),
                                                            x.cols()));
    }
    for (chunk<T>& c : chunks) {
      c.results->finish();
      if (failed == nullptr)
        add_up(ctx, c.kept->exchange, std::as_const(c.memory->rows_out).view(), y, c.tokens,
               probes::direction::forward);
    }
    if (failed != nullptr)
      std::rethrow_exception(failed);
    tape.expert_output().resize_for_overwrite(0, x.cols()); // they are at the experts' ranks
  }

  /// to[t] = Σ over t's rows, ranks ascending.
  template <execution_context Context, class T>
  static void add_up(const Context& ctx, const row_exchange& exchange, matrix_view<const T> rows, matrix_view<T> to,
                     row_exchange::token_range tokens, probes::direction direction) {
    hmoe::for_each_row(
        ctx, tokens.end - tokens.first,
        [&](std::size_t i) {
          const std::size_t t = tokens.first + i;
          const auto own = exchange.rows_of_token(t);
          rows::weighted_sum(
              ctx.backend(), own.size(), [](std::size_t) { return T(1); },
              [&](std::size_t r) { return rows.row(own[r]); }, to.row(t));
        },
        permuted::combined_row<Context>(direction, to, rows.rows()));
  }
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
