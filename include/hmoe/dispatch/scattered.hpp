// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace hmoe::dispatch {

/// The experts read the tokens where they are and add their weighted results to the output themselves: rows are
/// gathered while kernels pack them and combined in their epilogues, and no matrix of permuted rows exists. Backward,
/// dy is gathered and weighted and dx is added to in the same way; the outputs of experts are kept for the gradients of
/// the weights.
/// In inference the rows of banks that cannot do it are gathered first (simd::pack and the feed-forward banks of
/// backends::simd can). Training needs that all banks can, backward too (experts.gathers_rows(ctx)), and no weights on
/// the input; else it goes the way of `sorted`.
/// Same bits as the other dropless strategies.
struct scattered {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    build_plan(ctx, experts, tape);
    if (tape.recording() && !experts.gathers_rows(ctx))
      return permuted::forward(ctx, experts, x, y, tape);
    if (tape.recording())
      dispatch::lay_out_tape(experts, tape);
    const rows_of<T> work(ctx, experts, std::as_const(tape), [&](expert_rows<T>& rows, std::size_t first) {
      rows.x = x;
      rows.y = y;
      rows.weights_on_input = tape.weights_on_input();
      if (tape.recording()) {
        rows.saved = tape.activations(rows.expert, rows.count);
        rows.outputs = tape.expert_output().view().row_block(first, rows.count);
      }
    });
    set_zero(ctx, y);
    experts.forward_rows(ctx, work.view());
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    if (tape.weights_on_input() || !experts.gathers_rows(ctx))
      return permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
    const auto& saved = std::as_const(tape);
    const plan& by_expert = saved.plan();
    hmoe::for_each_row(ctx, by_expert.size(), [&](std::size_t slot) {
      d_weights[by_expert.entries()[slot]] =
          rows::dot(ctx.backend(), dy.row(by_expert.tokens()[slot]), saved.expert_output().row(slot));
    });
    const rows_of<T> work(ctx, experts, saved, [&](expert_rows<T>& rows, std::size_t) {
      rows.x = saved.input().view();
      rows.saved = tape.activations(rows.expert, rows.count);
      rows.dy = dy;
      rows.dx = dx;
    });
    set_zero(ctx, dx);
    experts.backward_rows(ctx, work.view(), gradients);
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    const row_limits rows{limits.entries, limits.tokens};
    if (tape.recording() && !experts.gathers_rows(dry))
      return permuted::lay_out_forward(dry, experts, tape, rows);
    if (!tape.recording())
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    const buffer<expert_rows<T>> work(rows.entries(experts.size()), &dry.workspace());
    experts.lay_out_forward_rows(dry, rows, true);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    row_limits rows{limits.entries, limits.tokens};
    if (tape.weights_on_input() || !experts.gathers_rows(dry))
      return permuted::lay_out_backward<T>(dry, experts, rows);
    const buffer<expert_rows<T>> work(rows.entries(experts.size()), &dry.workspace());
    rows.scatters = true;
    experts.lay_out_backward_rows(dry, rows);
  }
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits& limits) noexcept {
    return limits.entries;
  }

private:
  template <execution_context Context, class T> static void set_zero(const Context& ctx, matrix_view<T> all) {
    hmoe::for_each_row(ctx, all.rows(), [&](std::size_t t) { std::fill(all.row(t).begin(), all.row(t).end(), T(0)); });
  }
  /// The rows of all experts that have some; complete(rows, first slot) adds where they come from and go to.
  template <class T> class rows_of {
  public:
    template <execution_context Context, class Experts, class F>
    rows_of(const Context& ctx, const Experts& experts, const tape<T>& tape, const F& complete)
        : rows_(std::min(experts.size(), tape.plan().size()), &ctx.workspace()) {
      for (std::size_t e = 0; e < experts.size(); ++e)
        if (const std::size_t first = tape.plan().offsets()[e], count = tape.plan().rows_of(e); count != 0) {
          expert_rows<T>& own = rows_[count_++];
          own = {};
          own.expert = e;
          own.count = count;
          own.tokens = tape.plan().tokens().subview(first, count);
          own.entries = tape.plan().entries().subview(first, count);
          own.weights = tape.assignment().weights();
          complete(own, first);
        }
    }
    [[nodiscard]] vector_view<const expert_rows<T>> view() const noexcept { return rows_.view().subview(0, count_); }

  private:
    buffer<expert_rows<T>> rows_;
    std::size_t count_ = 0;
  };
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
