// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <cstddef>
#include <memory_resource>
#include <utility>

namespace hmoe::dispatch {

/// One pass over the chosen experts, in the order of the assignment and without a plan:
///   x, row by row where it is ─ experts ─▶ outputs by entry ─ combine ─▶ y
/// For one or few tokens: nothing is sorted or gathered, but an expert that several tokens chose reads its weights for
/// each of them. Training goes the way of `sorted`, since a gradient is one sum over all rows of an expert. Same bits
/// as the other dropless strategies.
struct per_token {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    if (tape.recording()) {
      build_plan(ctx, experts, tape);
      return permuted::forward(ctx, experts, x, y, tape);
    }
    const assignment<T>& assigned = tape.assignment();
    assigned.require_ascending_offsets();
    require(assigned.experts().size() == assigned.size(), "the assignment has ", assigned.size(),
            " entries by its offsets, but ", assigned.experts().size(), " ids");
    const bool on_input = tape.weights_on_input();
    memory_of<T> memory(&ctx.workspace(), assigned.size(), x.cols(), on_input);
    for (std::size_t t = 0; t < x.rows(); ++t)
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        if (on_input)
          rows::copy_scaled(ctx.backend(), assigned.weights()[a], x.row(t), memory.scaled.row(a));
        memory.work[a] = expert_rows<T>::forward(assigned.experts()[a],
                                                 on_input ? memory.scaled.view().row_block(a, 1) : x.row_block(t, 1),
                                                 memory.out.view().row_block(a, 1), {});
      }
    experts.forward_rows(ctx, std::as_const(memory.work).view());
    const auto combine_row = [&](std::size_t t) {
      const std::size_t first = assigned.offsets()[t];
      rows::weighted_sum(
          ctx.backend(), assigned.offsets()[t + 1] - first,
          [&](std::size_t i) { return on_input ? T(1) : assigned.weights()[first + i]; },
          [&](std::size_t i) { return std::as_const(memory.out).row(first + i); }, y.row(t));
    };
    hmoe::for_each_row(ctx, y.rows(), combine_row,
                       permuted::combined_row<Context>(probes::direction::forward, y, assigned.size()));
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (tape.recording())
      return permuted::lay_out_forward(dry, experts, tape, {limits.entries, limits.tokens});
    const memory_of<T> memory(&dry.workspace(), limits.entries, experts.d_model(), tape.weights_on_input());
    experts.lay_out_forward_rows(dry, row_limits{limits.entries, limits.tokens, 1}, false);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>&, const batch_limits& limits) const {
    permuted::lay_out_backward<T>(dry, experts, {limits.entries, limits.tokens});
  }
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits& limits) noexcept {
    return limits.entries;
  }

private:
  template <class T> struct memory_of {
    memory_of(std::pmr::memory_resource* memory, std::size_t entries, std::size_t d_model, bool on_input)
        : scaled(matrix<T>::for_overwrite(on_input ? entries : 0, d_model, memory)),
          out(matrix<T>::for_overwrite(entries, d_model, memory)), work(entries, memory) {}

    matrix<T> scaled, out; ///< by entry
    buffer<expert_rows<T>> work;
  };
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
