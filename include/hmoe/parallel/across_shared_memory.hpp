// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>
#include <hmoe/parallel/across_ranks.hpp>
#include <hmoe/parallel/communicator.hpp>
#include <hmoe/parallel/parallel_memory.hpp>
#include <hmoe/parallel/row_exchange.hpp>
#include <hmoe/parallel/rows_in_place.hpp>
#include <hmoe/parallel/shared_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory_resource>
#include <numeric>
#include <optional>
#include <utility>

namespace hmoe::dispatch {

/// The forward pass of expert_parallel where ranks read each other's memory; and how results are made and combined,
/// wherever they come from.
template <communicator Communicator, class Inner>
class across_shared_memory : public across_ranks<Communicator, Inner> {
  using base = across_ranks<Communicator, Inner>;

protected:
  using base::base;
  using base::inner_;
  using base::placed_;
  using base::ranks_;

  /// to[t] = Σ over t's entries, experts ascending, of weight(entry) · result(entry), for these tokens.
  template <execution_context Context, class T, class Weight, class Result>
  static void combine(const Context& ctx, const assignment<T>& assigned, matrix_view<T> to,
                      row_exchange::token_range tokens, const Weight& weight, const Result& result,
                      probes::direction direction) {
    const std::size_t entries = assigned.offsets()[tokens.end] - assigned.offsets()[tokens.first];
    hmoe::for_each_row(
        ctx, tokens.end - tokens.first,
        [&](std::size_t i) {
          const std::size_t t = tokens.first + i, first = assigned.offsets()[t];
          rows::weighted_sum(
              ctx.backend(), assigned.offsets()[t + 1] - first, [&](std::size_t k) { return weight(first + k); },
              [&](std::size_t k) { return result(first + k); }, to.row(t));
        },
        permuted::combined_row<Context>(direction, to, entries));
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

  /// Without messages of rows: see rows_in_place. Returns false, on all ranks and before anything is computed, where
  /// the shared memory is too small for this batch and does not grow.
  template <execution_context Context, class Experts, class T>
  bool forward_in_place(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
                        tape<T>& tape, detail::parallel_memory<T>& kept) const {
    const auto& assigned = std::as_const(tape).assignment();
    const bool on_input = tape.weights_on_input();
    const row_exchange::token_range tokens{0, x.rows()};
    std::pmr::memory_resource* const memory = &ctx.workspace();
    row_exchange& exchange = kept.exchange;
    std::optional<row_exchange::scratch> work;
    this->meet_forward(exchange, assigned, tape.plan(), tokens, x.cols(), memory, work);

    rows_in_place<T> rows(memory);
    matrix<T> own_input(memory);
    matrix<T>& input = tape.recording() ? kept.inner.input() : own_input;
    std::size_t in = 0, bytes = 0;
    const auto memory_of = [&]([[maybe_unused]] std::size_t p) -> std::byte* {
      if constexpr (communicators::shares_memory<Communicator>)
        return ranks_.shared()->part(p);
      else
        return nullptr;
    };
    const auto publish = [&] {
      rows.publish(ctx, memory_of(ranks_.rank()), exchange, work->lists(), assigned.weights(), x);
    };
    std::uint64_t small = 0;
    const std::exception_ptr prepared = exception_of([&] {
      row_exchange::allowance allowed = this->allowance();
      exchange.take_counts(ranks_.rank(), assigned, tokens, *work, allowed);
      in = exchange.experts_in().size();
      bytes = rows.make_room(exchange, ranks_.rank(), x.rows(), x.cols(), on_input);
      input.resize_for_overwrite(in, x.cols());
      kept.results.resize_for_overwrite(tape.recording() ? exchange.results().size() : 0, x.cols());
      if constexpr (communicators::shares_memory<Communicator>)
        small = ranks_.shared()->bytes() < bytes ? 1 : 0;
      if (small == 0)
        publish();
    });
    if (this->agree(prepared, small) != 0) {
      if constexpr (communicators::shares_memory<Communicator>)
        if (!ranks_.shared()->grow(ranks_, bytes))
          return false;
      this->agree(exception_of(publish));
    }

    const matrix_view<T> results = rows.results_in(memory_of(ranks_.rank()), exchange);
    this->agree(exception_of([&] {
      const typename Context::workspace_scope scope(ctx.workspace());
      rows.find(memory_of, exchange, placed_.experts(), work->lists(), assigned.weights(), x,
                matrix_view<const T>(results));
      hmoe::for_each_row(
          ctx, in,
          [&](std::size_t i) {
            if (on_input)
              rows::copy_scaled(ctx.backend(), rows.weight(i), rows.source(i), input.row(i));
            else
              std::ranges::copy(rows.source(i), input.row(i).begin());
          },
          probes::row<Context>(probes::stage::gather, probes::direction::forward,
                               static_cast<double>(2 * x.cols() * sizeof(T))));
      assign(exchange, kept.inner);
      inner_.forward(ctx, experts, std::as_const(input).view(), results, kept.inner);
    }));
    const bool keeps = tape.recording();
    combine(
        ctx, assigned, y, tokens, [&](std::size_t a) { return on_input ? T(1) : assigned.weights()[a]; },
        [&](std::size_t a) {
          const std::size_t place = exchange.result_of()[a];
          if (!keeps)
            return rows.result(place);
          const vector_view<T> own = kept.results.row(place); // for backward; the others' memory is used again
          std::ranges::copy(rows.result(place), own.begin());
          return vector_view<const T>(own);
        },
        probes::direction::forward);
    tape.expert_output().resize_for_overwrite(0, x.cols());
    return true;
  }
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
