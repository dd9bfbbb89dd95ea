// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <utility>

/// The two passes of every strategy that permutes the tokens into expert order once, given the plan in the tape:
///   x ─ gather ─▶ rows by expert ─ experts ─▶ outputs by expert ─ combine ─▶ y
namespace hmoe::dispatch::permuted {

/// The event of a row of `to` that is the sum of several: `rows` rows are added up in all.
template <execution_context Context, class T>
[[nodiscard]] probes::row_of<Context> combined_row(probes::direction direction, matrix_view<T> to,
                                                   std::size_t rows) noexcept {
  const std::size_t tokens = std::max<std::size_t>(to.rows(), 1);
  const double per_token = 1 + static_cast<double>(rows) / static_cast<double>(tokens);
  return probes::row<Context>(probes::stage::combine, direction,
                              per_token * static_cast<double>(to.cols() * sizeof(T)));
}

/// to[t] = Σ over t's entries, experts ascending, of weight(entry) · by_expert[slot of entry]; dropped entries add
/// nothing.
template <execution_context Context, class T, class Weight>
void combine(const Context& ctx, const tape<T>& tape, matrix_view<const T> by_expert, matrix_view<T> to, Weight weight,
             probes::direction direction = probes::direction::forward) {
  const auto& assigned = tape.assignment();
  const auto combine_row = [&](std::size_t t) {
    const std::size_t first = assigned.offsets()[t], count = assigned.offsets()[t + 1] - first;
    rows::weighted_sum(
        ctx.backend(), count, [&](std::size_t i) { return weight(first + i); },
        [&](std::size_t i) {
          const index_t slot = tape.plan().slots()[first + i];
          return slot == no_index ? vector_view<const T>{} : by_expert.row(slot);
        },
        to.row(t));
  };
  hmoe::for_each_row(ctx, to.rows(), combine_row, combined_row<Context>(direction, to, by_expert.rows()));
}

template <class T> struct forward_memory {
  forward_memory(std::pmr::memory_resource* memory, const row_limits& slots, std::size_t d_model, std::size_t experts)
      : rows(matrix<T>::for_overwrite(slots.total, d_model, memory)), work(slots.entries(experts), memory) {}

  matrix<T> rows; ///< by expert
  buffer<expert_rows<T>> work;
};
template <class T> struct backward_memory {
  backward_memory(std::pmr::memory_resource* memory, std::size_t slots, std::size_t d_model, std::size_t experts)
      : rows(matrix<T>::for_overwrite(slots, d_model, memory)), d_out(matrix<T>::for_overwrite(slots, d_model, memory)),
        d_rows(matrix<T>::for_overwrite(slots, d_model, memory)), work(std::min(experts, slots), memory) {}

  matrix<T> rows, d_out, d_rows; ///< by expert
  buffer<expert_rows<T>> work;
};

/// y from x. `block`: the rows of an entry of the list that experts get; 0: all rows of an expert.
template <execution_context Context, dispatched_experts<Context> Experts, class T>
void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape,
             std::size_t block = 0) {
  const plan& by_expert = tape.plan();
  forward_memory<T> memory(&ctx.workspace(), {by_expert.size(), by_expert.size(), block}, x.cols(), experts.size());
  if (tape.recording())
    dispatch::lay_out_tape(experts, tape);
  else
    tape.expert_output().resize_for_overwrite(by_expert.size(), x.cols());
  dispatch::gather_input(ctx, std::as_const(tape), 0, x, memory.rows.view());

  std::size_t busy = 0;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::size_t begin = by_expert.offsets()[e], rows = by_expert.rows_of(e);
    const matrix_view<T> saved = tape.recording() ? tape.activations(e, rows) : matrix_view<T>{};
    for (std::size_t done = 0, count = 0; done < rows; done += count) {
      count = block == 0 ? rows : std::min(block, rows - done);
      memory.work[busy++] = expert_rows<T>::forward(e, memory.rows.view().row_block(begin + done, count),
                                                    tape.expert_output().view().row_block(begin + done, count),
                                                    tape.recording() ? saved.row_block(done, count) : matrix_view<T>{});
    }
  }
  experts.forward_rows(ctx, std::as_const(memory.work).view().subview(0, busy));
  permuted::combine(ctx, std::as_const(tape), std::as_const(tape).expert_output().view(), y, [&](std::size_t entry) {
    return tape.weights_on_input() ? T(1) : tape.assignment().weights()[entry];
  });
}

template <execution_context Context, dispatched_experts<Context> Experts, class T>
void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, row_limits limits) {
  limits.keeps = tape.recording();
  const forward_memory<T> memory(&dry.workspace(), limits, experts.d_model(), experts.size());
  if (!tape.recording())
    tape.expert_output().resize_for_overwrite(limits.total, experts.d_model());
  experts.lay_out_forward_rows(dry, limits, false);
}

/// dx =, d_weights = (0 for dropped entries), gradients +=.
template <execution_context Context, dispatched_experts<Context> Experts, class T>
void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
              vector_view<T> d_weights, Experts& gradients) {
  const plan& by_expert = tape.plan();
  backward_memory<T> memory(&ctx.workspace(), by_expert.size(), dy.cols(), experts.size());
  const matrix_view<T> rows = memory.rows.view(), d_out = memory.d_out.view(), d_rows = memory.d_rows.view();
  std::fill(d_weights.begin(), d_weights.end(), T(0)); // dropped entries keep this
  dispatch::gather_input(ctx, std::as_const(tape), 0, std::as_const(tape).input().view(), rows,
                         probes::direction::backward);
  dispatch::gather_output_gradient(ctx, std::as_const(tape), 0, dy, d_out, d_weights);

  std::size_t busy = 0;
  for (std::size_t e = 0; e < experts.size(); ++e)
    if (const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e); count != 0)
      memory.work[busy++] = expert_rows<T>::backward(e, rows.row_block(first, count), tape.activations(e, count),
                                                     d_out.row_block(first, count), d_rows.row_block(first, count));
  experts.backward_rows(ctx, std::as_const(memory.work).view().subview(0, busy), gradients);
  dispatch::scale_input_gradient(ctx, std::as_const(tape), 0, d_rows, d_weights);
  permuted::combine(
      ctx, std::as_const(tape), matrix_view<const T>(d_rows), dx, [](std::size_t) { return T(1); },
      probes::direction::backward);
}
template <class T, execution_context Context, dispatched_experts<Context> Experts>
void lay_out_backward(const Context& dry, const Experts& experts, const row_limits& limits) {
  const backward_memory<T> memory(&dry.workspace(), limits.total, experts.d_model(), experts.size());
  experts.lay_out_backward_rows(dry, limits);
}

} // namespace hmoe::dispatch::permuted

#include <hmoe/core/macros_on.hpp>
