// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
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

namespace hmoe::dispatch {

/// One expert after the other: gather its tokens, run it, add its weighted results to the output. Needs the least
/// memory; threads share work only inside one expert (and not at all in its backward pass).
struct looped {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    build_plan(ctx, experts, tape);
    const plan& by_expert = tape.plan();
    if (tape.recording())
      dispatch::lay_out_tape(experts, tape);
    for (std::size_t t = 0; t < y.rows(); ++t)
      std::fill(y.row(t).begin(), y.row(t).end(), T(0));

    for (std::size_t e = 0; e < experts.size(); ++e) {
      const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
      if (count == 0)
        continue;
      const typename Context::workspace_scope scope(ctx.workspace());
      const auto tokens = by_expert.tokens().subview(first, count);
      forward_memory<T> memory(&ctx.workspace(), count, x.cols(), tape.recording());
      const matrix_view<T> out =
          tape.recording() ? tape.expert_output().view().row_block(first, count) : memory.unrecorded.view();
      dispatch::gather_input(ctx, std::as_const(tape), first, x, memory.rows.view());
      const auto work = expert_rows<T>::forward(e, memory.rows.view(), out,
                                                tape.recording() ? tape.activations(e, count) : matrix_view<T>{});
      experts.forward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1));
      hmoe::for_each_row(
          ctx, count,
          [&](std::size_t i) { // a token comes once per expert, so no two tasks share a row
            rows::add_scaled(ctx.backend(), tape.weights_on_input() ? T(1) : slot_weight(tape, first + i),
                             vector_view<const T>(out.row(i)), y.row(tokens[i]));
          },
          combined_row<T>(ctx, e, x.cols(), probes::direction::forward));
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
      const std::size_t first = by_expert.offsets()[e], count = by_expert.rows_of(e);
      if (count == 0)
        continue;
      const typename Context::workspace_scope scope(ctx.workspace());
      const auto tokens = by_expert.tokens().subview(first, count);
      backward_memory<T> memory(&ctx.workspace(), count, dy.cols());
      dispatch::gather_input(ctx, std::as_const(tape), first, std::as_const(tape).input().view(), memory.rows.view(),
                             probes::direction::backward);
      dispatch::gather_output_gradient(ctx, std::as_const(tape), first, dy, memory.d_out.view(), d_weights);
      const auto work = expert_rows<T>::backward(e, memory.rows.view(), tape.activations(e, count), memory.d_out.view(),
                                                 memory.d_rows.view());
      experts.backward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1), gradients);
      dispatch::scale_input_gradient(ctx, std::as_const(tape), first, memory.d_rows.view(), d_weights);
      hmoe::for_each_row(
          ctx, count,
          [&](std::size_t i) {
            rows::add_scaled(ctx.backend(), T(1), std::as_const(memory.d_rows).row(i), dx.row(tokens[i]));
          },
          combined_row<T>(ctx, e, dx.cols(), probes::direction::backward));
    }
  }

  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits& limits) noexcept {
    return limits.entries;
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    const typename Context::workspace_scope scope(dry.workspace());
    const forward_memory<T> memory(&dry.workspace(), limits.tokens, experts.d_model(), tape.recording());
    experts.lay_out_forward_rows(dry, row_limits{limits.tokens, limits.tokens}, false);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>&, const batch_limits& limits) const {
    const typename Context::workspace_scope scope(dry.workspace());
    const backward_memory<T> memory(&dry.workspace(), limits.tokens, experts.d_model());
    experts.lay_out_backward_rows(dry, row_limits{limits.tokens, limits.tokens});
  }

private:
  /// The event of a row that is read and added to a token.
  template <class T, execution_context Context>
  static probes::row_of<Context> combined_row(const Context&, std::size_t expert, std::size_t d_model,
                                              probes::direction direction) noexcept {
    return probes::row<Context>(probes::stage::combine, direction, static_cast<double>(3 * d_model * sizeof(T)),
                                expert);
  }
  /// Of one expert.
  template <class T> struct forward_memory {
    forward_memory(std::pmr::memory_resource* memory, std::size_t count, std::size_t d_model, bool recording)
        : rows(matrix<T>::for_overwrite(count, d_model, memory)),
          unrecorded(matrix<T>::for_overwrite(recording ? 0 : count, d_model, memory)) {}

    matrix<T> rows, unrecorded;
  };
  template <class T> struct backward_memory {
    backward_memory(std::pmr::memory_resource* memory, std::size_t count, std::size_t d_model)
        : rows(matrix<T>::for_overwrite(count, d_model, memory)),
          d_out(matrix<T>::for_overwrite(count, d_model, memory)),
          d_rows(matrix<T>::for_overwrite(count, d_model, memory)) {}

    matrix<T> rows, d_out, d_rows;
  };
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
