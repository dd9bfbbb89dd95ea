// SPDX-License-Identifier: MIT
#pragma once

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
template <communicator Communicator, class Inner = sorted<>>
class expert_parallel_summed : public across_ranks<Communicator, Inner> {
  using base = across_ranks<Communicator, Inner>;
  using base::inner_;
  using base::placed_;
  using base::ranks_;
  using base::send_rows;
  using base::values_of;

public:
  /// Collective: hmoe::error on every rank where the placements differ, or are for another number of ranks.
  expert_parallel_summed(Communicator ranks, expert_placement placed, Inner inner = {})
      : base("expert_parallel_summed", std::move(ranks), std::move(placed), std::move(inner), 1) {}
  /// The same with another placement. Collective.
  [[nodiscard]] expert_parallel_summed with_placement(expert_placement placed) const {
    return {ranks_, std::move(placed), inner_};
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    this->run_pass([&] {
      this->check_experts(experts);
      build_plan(ctx, experts, tape);
      if (tape.recording()) {
        forward_into(ctx, experts, x, y, tape, tape.template kept<detail::summed_memory<T>>());
      } else {
        detail::summed_memory<T> memory(&ctx.workspace(), false);
        forward_into(ctx, experts, x, y, tape, memory);
      }
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
    detail::summed_memory<T> kept(tape.recording() ? &not_of_this : own, tape.recording());
    kept.exchange.lay_out(ranks_.size(), limits.tokens, limits.entries, own);
    const batch_limits in = limits_in(experts, limits);
    kept.inner.assignment().reserve(in.tokens, in.entries);
    kept.inner.set_weights_on_input(tape.weights_on_input());
    const memory_of<T> memory(own, rows_out(limits), in.tokens, limits.entries, in.entries, experts.d_model());
    inner_.lay_out_forward(dry, experts, kept.inner, in);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    this->lay_out_meeting(&dry.workspace());
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    const batch_limits in = limits_in(experts, limits);
    hmoe::tape<T> inner(&not_of_this, true);
    inner.set_weights_on_input(tape.weights_on_input());
    const memory_of<T> memory(&dry.workspace(), rows_out(limits), in.tokens, limits.entries, in.entries,
                              experts.d_model());
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
    add_up(ctx, exchange, std::as_const(memory.rows_out).view(), dx, probes::direction::backward);
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

  [[nodiscard]] std::size_t rows_out(const batch_limits& limits) const {
    return std::min(limits.entries, limits.tokens * ranks_.size());
  }
  /// All rows of all ranks on this one.
  template <class Experts>
  [[nodiscard]] batch_limits limits_in(const Experts& experts, const batch_limits& limits) const {
    return {limits.tokens * ranks_.size(), limits.entries * ranks_.size(), experts.size(), false};
  }

  template <execution_context Context, class Experts, class T>
  void forward_into(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape,
                    detail::summed_memory<T>& kept) const {
    row_exchange& exchange = kept.exchange;
    std::optional<memory_of<T>> room;
    matrix<T>* input = nullptr;
    auto& assigned = kept.inner.assignment();
    std::exception_ptr failed =
        this->exchange_counts(exchange, std::as_const(tape).assignment(), std::as_const(tape).plan(), {0, x.rows()},
                              x.cols(), &ctx.workspace(), [&] {
                                exchange.index_rows_of_tokens(x.rows());
                                room.emplace(&ctx.workspace(), exchange, x.cols());
                                input = tape.recording() ? &kept.inner.input() : &room->rows_in;
                                input->resize_for_overwrite(exchange.rows_in_total(), x.cols());
                                assigned.reserve(exchange.rows_in_total(), exchange.experts_in().size());
                              });
    memory_of<T>& memory = *room;
    // What is wrong with the lists comes first: they decide below whether they can be used.
    std::exception_ptr gathering;
    send_rows(ctx, exchange, x, memory.rows_out.view(), *input, probes::direction::forward, gathering);

    // Lists that cannot be are not run.
    assigned.resize_tokens(exchange.rows_in_total());
    if (failed == nullptr)
      std::ranges::copy(exchange.first_entries_in(), assigned.offsets().begin());
    else
      assigned.offsets()[assigned.tokens()] = static_cast<index_t>(exchange.experts_in().size());
    assigned.resize_entries();
    std::ranges::copy(exchange.experts_in(), assigned.experts().begin());
    for (std::size_t i = 0; i < memory.entries_out.size(); ++i)
      memory.entries_out[i] = std::as_const(tape).assignment().weights()[exchange.results()[i]];
    ranks_.template all_to_all<T>(detail::span_of(memory.entries_out), exchange.entries_out(),
                                  std::span<T>(assigned.weights().data(), assigned.size()), exchange.entries_in());
    kept.inner.set_weights_on_input(tape.weights_on_input());
    if (failed == nullptr)
      failed = gathering;
    if (failed == nullptr)
      failed = exception_of(
          [&] { inner_.forward(ctx, experts, std::as_const(*input).view(), memory.sums.view(), kept.inner); });
    ranks_.template all_to_all<T>(values_of(memory.sums), exchange.rows_in(), values_of(memory.rows_out),
                                  exchange.rows_out(), x.cols());
    if (failed != nullptr)
      std::rethrow_exception(failed);
    add_up(ctx, exchange, std::as_const(memory.rows_out).view(), y, probes::direction::forward);
    tape.expert_output().resize_for_overwrite(0, x.cols()); // they are at the experts' ranks
  }

  /// to[t] = Σ over t's rows, ranks ascending.
  template <execution_context Context, class T>
  static void add_up(const Context& ctx, const row_exchange& exchange, matrix_view<const T> rows, matrix_view<T> to,
                     probes::direction direction) {
    hmoe::for_each_row(
        ctx, to.rows(),
        [&](std::size_t t) {
          const auto own = exchange.rows_of_token(t);
          rows::weighted_sum(
              ctx.backend(), own.size(), [](std::size_t) { return T(1); },
              [&](std::size_t i) { return rows.row(own[i]); }, to.row(t));
        },
        permuted::combined_row<Context>(direction, to, rows.rows()));
  }
};

} // namespace hmoe::dispatch
