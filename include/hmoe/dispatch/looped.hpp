// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::dispatch {

/// One expert after the other: gather its tokens, run it, add its weighted results to the output. Needs the least
/// memory; threads share work only inside one expert (and not at all in its backward pass).
struct looped {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    plan& by_expert = tape.plan();
    build_plan(std::as_const(tape).assignment(), experts.size(), by_expert);
    if (tape.recording()) {
      tape.expert_output().resize_for_overwrite(by_expert.size(), x.cols());
      tape.layout_activations(
          experts.size(), [&](std::size_t e) { return by_expert.rows_of(e); },
          [&](std::size_t e) { return experts.saved_per_row(e); });
    }
    for (std::size_t t = 0; t < y.rows(); ++t)
      std::fill(y.row(t).begin(), y.row(t).end(), T(0));

    for (std::size_t e = 0; e < experts.size(); ++e) {
      const typename Context::workspace_scope scope(ctx.workspace());
      const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
      const auto tokens = std::as_const(by_expert).tokens().subview(first, count);
      matrix<T> rows(&ctx.workspace()), unrecorded(&ctx.workspace());
      rows.resize_for_overwrite(count, x.cols());
      if (!tape.recording())
        unrecorded.resize_for_overwrite(count, x.cols());
      const matrix_view<T> out =
          tape.recording() ? tape.expert_output().view().row_block(first, count) : unrecorded.view();
      dispatch::gather_input(ctx, std::as_const(tape), first, x, rows.view());
      const auto work = expert_rows<T>::forward(e, rows.view(), out,
                                                tape.recording() ? tape.activations(e, count) : matrix_view<T>{});
      experts.forward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1));
      hmoe::for_each_row(ctx, count, [&](std::size_t i) { // a token comes once per expert, so no two tasks share a row
        rows::add_scaled(ctx.backend(), tape.weights_on_input() ? T(1) : slot_weight(tape, first + i),
                         vector_view<const T>(out.row(i)), y.row(tokens[i]));
      });
    }
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    const plan& by_expert = tape.plan();
    std::fill(d_weights.begin(), d_weights.end(), T(0));
    for (std::size_t t = 0; t < dx.rows(); ++t)
      std::fill(dx.row(t).begin(), dx.row(t).end(), T(0));

    for (std::size_t e = 0; e < experts.size(); ++e) {
      const typename Context::workspace_scope scope(ctx.workspace());
      const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
      const auto tokens = by_expert.tokens().subview(first, count);
      matrix<T> rows(&ctx.workspace()), d_out(&ctx.workspace()), d_rows(&ctx.workspace());
      for (matrix<T>* m : {&rows, &d_out, &d_rows})
        m->resize_for_overwrite(count, dy.cols());
      dispatch::gather_input(ctx, std::as_const(tape), first, std::as_const(tape).input().view(), rows.view());
      dispatch::gather_output_gradient(ctx, std::as_const(tape), first, dy, d_out.view(), d_weights);
      const auto work =
          expert_rows<T>::backward(e, rows.view(), tape.activations(e, count), d_out.view(), d_rows.view());
      experts.backward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1), gradients);
      dispatch::scale_input_gradient(ctx, std::as_const(tape), first, d_rows.view(), d_weights);
      hmoe::for_each_row(ctx, count, [&](std::size_t i) {
        rows::add_scaled(ctx.backend(), T(1), std::as_const(d_rows).row(i), dx.row(tokens[i]));
      });
    }
  }

  [[nodiscard]] static std::size_t slots(std::size_t, std::size_t entries, std::size_t) noexcept { return entries; }
  [[nodiscard]] static std::size_t workspace_rows(std::size_t tokens, std::size_t) noexcept { return 3 * tokens; }
  [[nodiscard]] static std::size_t rows_at_once(std::size_t tokens, std::size_t) noexcept { return tokens; }
};

} // namespace hmoe::dispatch
