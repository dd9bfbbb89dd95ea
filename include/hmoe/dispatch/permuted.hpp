// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <utility>

/// The two passes of every strategy that permutes the tokens into expert order once, given the plan in the tape:
///   x ─ gather ─▶ rows by expert ─ experts ─▶ outputs by expert ─ combine ─▶ y
namespace hmoe::dispatch::permuted {

/// to[t] = Σ over t's entries, experts ascending, of weight(entry) · by_expert[slot of entry]; dropped entries add
/// nothing.
template <execution_context Context, class T, class Weight>
void combine(const Context& ctx, const tape<T>& tape, matrix_view<const T> by_expert, matrix_view<T> to,
             Weight weight) {
  const auto& assigned = tape.assignment();
  hmoe::for_each_row(ctx, to.rows(), [&](std::size_t t) {
    const std::size_t first = assigned.offsets()[t], count = assigned.offsets()[t + 1] - first;
    rows::weighted_sum(
        ctx.backend(), count, [&](std::size_t i) { return weight(first + i); },
        [&](std::size_t i) {
          const index_t slot = tape.plan().slots()[first + i];
          return slot == no_index ? vector_view<const T>{} : by_expert.row(slot);
        },
        to.row(t));
  });
}

/// y from x; takes one row per slot from the workspace.
template <execution_context Context, dispatched_experts<Context> Experts, class T>
void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape) {
  const plan& by_expert = tape.plan();
  matrix<T> rows(&ctx.workspace());
  rows.resize_for_overwrite(by_expert.size(), x.cols());
  tape.expert_output().resize_for_overwrite(by_expert.size(), x.cols());
  dispatch::gather_input(ctx, std::as_const(tape), 0, x, rows.view());

  if (tape.recording())
    tape.layout_activations(
        experts.size(), [&](std::size_t e) { return by_expert.rows_of(e); },
        [&](std::size_t e) { return experts.saved_per_row(e); });
  buffer<expert_rows<T>> work(experts.size(), &ctx.workspace());
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
    work[e] = expert_rows<T>::forward(e, rows.view().row_block(first, count),
                                      tape.expert_output().view().row_block(first, count),
                                      tape.recording() ? tape.activations(e, count) : matrix_view<T>{});
  }
  experts.forward_rows(ctx, std::as_const(work).view());
  permuted::combine(ctx, std::as_const(tape), std::as_const(tape).expert_output().view(), y, [&](std::size_t entry) {
    return tape.weights_on_input() ? T(1) : tape.assignment().weights()[entry];
  });
}

/// dx =, d_weights = (0 for dropped entries), gradients +=; takes three rows per slot from the workspace.
template <execution_context Context, dispatched_experts<Context> Experts, class T>
void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
              vector_view<T> d_weights, Experts& gradients) {
  const plan& by_expert = tape.plan();
  matrix<T> rows(&ctx.workspace()), d_out(&ctx.workspace()), d_rows(&ctx.workspace());
  for (matrix<T>* m : {&rows, &d_out, &d_rows})
    m->resize_for_overwrite(by_expert.size(), dy.cols());
  std::fill(d_weights.begin(), d_weights.end(), T(0)); // dropped entries keep this
  dispatch::gather_input(ctx, std::as_const(tape), 0, std::as_const(tape).input().view(), rows.view());
  dispatch::gather_output_gradient(ctx, std::as_const(tape), 0, dy, d_out.view(), d_weights);

  buffer<expert_rows<T>> work(experts.size(), &ctx.workspace());
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
    work[e] = expert_rows<T>::backward(e, rows.view().row_block(first, count), tape.activations(e, count),
                                       d_out.view().row_block(first, count), d_rows.view().row_block(first, count));
  }
  experts.backward_rows(ctx, std::as_const(work).view(), gradients);
  dispatch::scale_input_gradient(ctx, std::as_const(tape), 0, d_rows.view(), d_weights);
  permuted::combine(ctx, std::as_const(tape), std::as_const(d_rows).view(), dx, [](std::size_t) { return T(1); });
}

} // namespace hmoe::dispatch::permuted
