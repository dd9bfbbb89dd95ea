// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>

namespace hmoe::dispatch {

/// The weight of the entry that slot s came from.
template <class T> [[nodiscard]] T slot_weight(const tape<T>& tape, std::size_t slot) noexcept {
  return tape.assignment().weights()[tape.plan().entries()[slot]];
}

/// What the experts of slots [first, first + rows.rows()) read: x[token], times the weight where that is on the input;
/// zeros in padding slots.
template <execution_context Context, class T>
void gather_input(const Context& ctx, const tape<T>& tape, std::size_t first, matrix_view<const T> x,
                  matrix_view<T> rows, probes::direction direction = probes::direction::forward) {
  const auto gather_row = [&](std::size_t i) {
    const index_t token = tape.plan().tokens()[first + i];
    if (token == no_index) {
      std::fill(rows.row(i).begin(), rows.row(i).end(), T(0));
      return;
    }
    const auto from = x.row(token);
    if (tape.weights_on_input())
      rows::copy_scaled(ctx.backend(), slot_weight(tape, first + i), from, rows.row(i));
    else
      std::ranges::copy(from, rows.row(i).begin());
  };
  hmoe::for_each_row(
      ctx, rows.rows(), gather_row,
      probes::row<Context>(probes::stage::gather, direction, static_cast<double>(2 * rows.cols() * sizeof(T))));
}

/// ∂L/∂output of the experts of slots [first, first + d_out.rows()): dy[token], times the weight where that is on the
/// output; then also ∂L/∂weight = ⟨dy[token], output[slot]⟩. Zeros in padding slots.
template <execution_context Context, class T>
void gather_output_gradient(const Context& ctx, const tape<T>& tape, std::size_t first, matrix_view<const T> dy,
                            matrix_view<T> d_out, vector_view<T> d_weights) {
  constexpr auto direction = probes::direction::backward;
  const auto gather_row = [&](std::size_t i) {
    const std::size_t slot = first + i;
    const index_t token = tape.plan().tokens()[slot];
    if (token == no_index) {
      std::fill(d_out.row(i).begin(), d_out.row(i).end(), T(0));
      return;
    }
    const auto from = dy.row(token);
    if (tape.weights_on_input()) {
      std::ranges::copy(from, d_out.row(i).begin());
    } else {
      rows::copy_scaled(ctx.backend(), slot_weight(tape, slot), from, d_out.row(i));
      d_weights[tape.plan().entries()[slot]] = rows::dot(ctx.backend(), from, tape.expert_output().row(slot));
    }
  };
  hmoe::for_each_row(
      ctx, d_out.rows(), gather_row,
      probes::row<Context>(probes::stage::gather, direction, static_cast<double>(2 * d_out.cols() * sizeof(T))));
}

/// The rest of the backward pass where weights are on the input: ∂L/∂weight = ⟨∂L/∂row, x[token]⟩, then d_rows becomes
/// ∂L/∂x = weight · ∂L/∂row.
template <execution_context Context, class T>
void scale_input_gradient(const Context& ctx, const tape<T>& tape, std::size_t first, matrix_view<T> d_rows,
                          vector_view<T> d_weights) {
  if (!tape.weights_on_input())
    return;
  hmoe::for_each_row(ctx, d_rows.rows(), [&](std::size_t i) {
    const std::size_t slot = first + i;
    const index_t token = tape.plan().tokens()[slot];
    if (token == no_index)
      return;
    const vector_view<const T> row = d_rows.row(i);
    d_weights[tape.plan().entries()[slot]] = rows::dot(ctx.backend(), row, tape.input().row(token));
    rows::copy_scaled(ctx.backend(), slot_weight(tape, slot), row, d_rows.row(i));
  });
}

/// Makes room for what a recording tape keeps of the plan's rows: outputs by slot, saved values expert after expert.
template <class Experts, class T> void lay_out_tape(const Experts& experts, tape<T>& tape) {
  const plan& by_expert = tape.plan();
  tape.expert_output().resize_for_overwrite(by_expert.size(), experts.d_model());
  tape.layout_activations(
      experts.size(), [&](std::size_t e) { return by_expert.rows_of(e); },
      [&](std::size_t e) { return experts.saved_per_row(e); });
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
