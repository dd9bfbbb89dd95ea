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
#include <cstddef>
#include <memory_resource>
#include <numeric>
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

/// The experts of a layer on several ranks, each with tokens of its own: each rank runs the layer on its part of the
/// batch at the same time, and the experts that the placement gives it on the rows that all ranks send.
///   x ─ rows, once to each rank that needs them ─▶ experts there, by the inner strategy ─ results ─▶ combine ─▶ y
/// Results are added up at the token's rank in ascending order of experts, so y, dx and the gradients of the weights
/// have the same bits as with the inner strategy in one process, for any number of ranks and any placement (backends
/// that promise this within a process). Gradients are added to those of the experts that this rank has; for an expert
/// without replicas they have the bits that one process gets for the ranks' batches one after the other. The context
/// needs memory for the rows that come in: workspace_bytes announces what suffices when every rank has a batch of that
/// size and all of it goes to one. Passes are collective. The inner strategy must not drop entries.
template <communicator Communicator, class Inner = sorted<>>
class expert_parallel : public across_ranks<Communicator, Inner> {
  using base = across_ranks<Communicator, Inner>;
  using base::inner_;
  using base::placed_;
  using base::ranks_;
  using base::send_rows;
  using base::values_of;

public:
  /// Collective: hmoe::error on every rank where the placements differ, or are for another number of ranks.
  expert_parallel(Communicator ranks, expert_placement placed, Inner inner = {})
      : base(std::move(ranks), std::move(placed), std::move(inner)) {}

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    this->check_experts(experts);
    build_plan(ctx, experts, tape);
    if (tape.recording()) {
      forward_into(ctx, experts, x, y, tape, tape.template kept<detail::parallel_memory<T>>());
    } else {
      detail::parallel_memory<T> memory(&ctx.workspace(), false);
      forward_into(ctx, experts, x, y, tape, memory);
    }
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    detail::parallel_memory<T>& kept = tape.template kept<detail::parallel_memory<T>>();
    const row_exchange& exchange = kept.exchange;
    const auto& assigned = std::as_const(tape).assignment();
    const bool on_input = tape.weights_on_input();
    const std::size_t d = dy.cols(), results = exchange.results().size(), in = exchange.experts_in().size();
    backward_memory<T> memory(&ctx.workspace(), exchange.tokens_out().size(), exchange.rows_in_total(), in, results, d,
                              on_input);
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
    inner_.backward(ctx, experts, kept.inner, std::as_const(memory.d_out).view(), memory.d_in.view(),
                    memory.unused.view(), gradients);
    ranks_.template all_to_all<T>(values_of(memory.d_in), exchange.entries_in(), values_of(memory.d_results),
                                  exchange.entries_out(), d);

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
    combine(ctx, exchange, assigned, std::as_const(memory.d_results).view(), dx, [](std::size_t) { return T(1); });
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    const std::size_t d = experts.d_model(), count = ranks_.size(), in = limits.entries * count;
    const std::size_t rows_in = limits.tokens * count, rows_out = std::min(rows_in, limits.entries);
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    std::pmr::memory_resource* kept =
        tape.recording() ? &not_of_this : static_cast<std::pmr::memory_resource*>(&dry.workspace());
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    detail::parallel_memory<T> memory(kept, tape.recording());
    memory.exchange.lay_out(count, limits.tokens, limits.entries, &dry.workspace());
    memory.results.resize_for_overwrite(limits.entries, d);
    memory.inner.assignment().reserve(in, in);
    const forward_memory<T> rows(&dry.workspace(), rows_out, rows_in, in, d, true, !tape.recording(), in);
    inner_.lay_out_forward(dry, experts, memory.inner, batch_limits{in, in, experts.size(), false});
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    const std::size_t count = ranks_.size(), in = limits.entries * count, rows_in = limits.tokens * count;
    const backward_memory<T> memory(&dry.workspace(), std::min(rows_in, limits.entries), rows_in, in, limits.entries,
                                    experts.d_model(), tape.weights_on_input());
    workspace not_of_this{dry_run{}};
    const workspace::scope scope(not_of_this);
    hmoe::tape<T> inner(&not_of_this, true);
    inner_.lay_out_backward(dry, experts, inner, batch_limits{in, in, experts.size(), false});
  }

private:
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

  /// to[t] = Σ over t's entries, experts ascending, of weight(entry) · its result.
  template <execution_context Context, class T, class Weight>
  static void combine(const Context& ctx, const row_exchange& exchange, const assignment<T>& assigned,
                      matrix_view<const T> results, matrix_view<T> to, const Weight& weight,
                      probes::direction direction = probes::direction::backward) {
    hmoe::for_each_row(
        ctx, to.rows(),
        [&](std::size_t t) {
          const std::size_t first = assigned.offsets()[t];
          rows::weighted_sum(
              ctx.backend(), assigned.offsets()[t + 1] - first, [&](std::size_t i) { return weight(first + i); },
              [&](std::size_t i) { return results.row(exchange.result_of()[first + i]); }, to.row(t));
        },
        permuted::combined_row<Context>(direction, to, results.rows()));
  }

  template <execution_context Context, class Experts, class T>
  void forward_into(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape,
                    detail::parallel_memory<T>& kept) const {
    const auto& assigned = std::as_const(tape).assignment();
    const bool on_input = tape.weights_on_input();
    row_exchange& exchange = kept.exchange;
    exchange.build(ranks_, placed_, assigned, std::as_const(tape).plan(), x.cols(), &ctx.workspace());
    const std::size_t in = exchange.experts_in().size(), results = exchange.results().size(), d = x.cols();
    // Where each row that comes in is for one expert, and not to be scaled, it is what that expert reads.
    const bool spread = on_input || in != exchange.rows_in_total();
    forward_memory<T> memory(&ctx.workspace(), exchange.tokens_out().size(), exchange.rows_in_total(), in, d, spread,
                             !tape.recording(), on_input ? std::max(in, results) : 0);
    matrix<T>& input = tape.recording() ? kept.inner.input() : memory.input;
    input.resize_for_overwrite(in, d);
    send_rows(ctx, exchange, x, memory.rows_out.view(), spread ? memory.rows_in : input, probes::direction::forward);
    if (on_input) {
      for (std::size_t i = 0; i < results; ++i)
        memory.weights_out[i] = assigned.weights()[exchange.results()[i]];
      ranks_.template all_to_all<T>(std::span<const T>(memory.weights_out.data(), results), exchange.entries_out(),
                                    std::span<T>(memory.weights_in.data(), in), exchange.entries_in());
    }
    if (spread)
      hmoe::for_each_row(ctx, in, [&](std::size_t i) {
        const auto from = std::as_const(memory.rows_in).row(exchange.rows_of_results_in()[i]);
        if (on_input)
          rows::copy_scaled(ctx.backend(), memory.weights_in[i], from, input.row(i));
        else
          std::ranges::copy(from, input.row(i).begin());
      });
    assign(exchange, kept.inner);
    inner_.forward(ctx, experts, std::as_const(input).view(), memory.out.view(), kept.inner);
    kept.results.resize_for_overwrite(results, d);
    ranks_.template all_to_all<T>(values_of(memory.out), exchange.entries_in(), values_of(kept.results),
                                  exchange.entries_out(), d);
    combine(
        ctx, exchange, assigned, std::as_const(kept.results).view(), y,
        [&](std::size_t a) { return on_input ? T(1) : assigned.weights()[a]; }, probes::direction::forward);
    tape.expert_output().resize_for_overwrite(0, d); // they are in `kept`, by the order in which they came back
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
};

} // namespace hmoe::dispatch
