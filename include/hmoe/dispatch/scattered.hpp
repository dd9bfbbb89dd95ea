// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::dispatch {

/// The experts read the tokens where they are and add their weighted results to the output themselves: rows are
/// gathered while kernels pack them and combined in their epilogues, and no matrix of permuted rows exists. That is for
/// inference and for banks that can do it (simd::pack); the rows of other banks are gathered first, and training goes
/// the way of `sorted`. Same bits as the other dropless strategies.
struct scattered {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    build_plan(std::as_const(tape).assignment(), experts.size(), tape.plan());
    if (tape.recording()) {
      permuted::forward(ctx, experts, x, y, tape);
      return;
    }
    hmoe::for_each_row(ctx, y.rows(), [&](std::size_t t) { std::fill(y.row(t).begin(), y.row(t).end(), T(0)); });
    const auto& routed = std::as_const(tape);
    buffer<expert_rows<T>> work(std::min(experts.size(), routed.plan().size()), &ctx.workspace());
    std::size_t count = 0;
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const std::size_t first = routed.plan().offsets()[e], rows = routed.plan().rows_of(e);
      if (rows == 0)
        continue;
      expert_rows<T>& own = work[count++];
      own = {};
      own.expert = e;
      own.count = rows;
      own.x = x;
      own.y = y;
      own.tokens = routed.plan().tokens().subview(first, rows);
      own.entries = routed.plan().entries().subview(first, rows);
      own.weights = routed.assignment().weights();
      own.weights_on_input = routed.weights_on_input();
    }
    experts.forward_rows(ctx, std::as_const(work).view().subview(0, count));
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    const row_limits rows{limits.entries, limits.tokens};
    if (tape.recording())
      return permuted::lay_out_forward(dry, experts, tape, rows);
    tape.plan().reserve(experts.size(), limits.entries, limits.entries);
    const buffer<expert_rows<T>> work(std::min(experts.size(), limits.entries), &dry.workspace());
    experts.lay_out_forward_rows(dry, rows, true);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>&, const batch_limits& limits) const {
    permuted::lay_out_backward<T>(dry, experts, {limits.entries, limits.tokens});
  }
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits& limits) noexcept {
    return limits.entries;
  }
};

} // namespace hmoe::dispatch
