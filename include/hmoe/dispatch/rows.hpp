// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>

#include <algorithm>

namespace hmoe::dispatch {

/// Rows that one task moves.
inline constexpr std::size_t rows_per_task = 64;

/// f(row) for each row below count, in tasks of rows_per_task.
template <class Context, class F> void for_each_row(const Context& ctx, std::size_t count, F&& f) {
  ctx.executor().for_each((count + rows_per_task - 1) / rows_per_task, [&](std::size_t task, std::size_t) {
    const std::size_t last = std::min(count, (task + 1) * rows_per_task);
    for (std::size_t r = task * rows_per_task; r < last; ++r)
      f(r);
  });
}

/// The functions below take the backend, and leave it to that where it has the function too.
///
/// to += weight · from. Every dispatch adds up a token with this one function, in ascending order of experts, which is
/// what makes their results equal to the bit.
template <class Math, class T>
void add_scaled(const Math& math, T weight, vector_view<const T> from, vector_view<T> to) noexcept {
  if constexpr (requires { math.add_scaled(weight, from, to); })
    math.add_scaled(weight, from, to);
  else
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] += weight * from[i];
}

/// to = Σ_i weight(i) · row(i) over i < count, as if by add_scaled in turn; an empty row adds nothing.
template <class Math, class T, class Weight, class Row>
void weighted_sum(const Math& math, std::size_t count, const Weight& weight, const Row& row, vector_view<T> to) {
  if constexpr (requires { math.weighted_sum(count, weight, row, to); }) {
    math.weighted_sum(count, weight, row, to);
  } else {
    std::fill(to.begin(), to.end(), T(0));
    for (std::size_t i = 0; i < count; ++i)
      if (const vector_view<const T> from = row(i); !from.empty())
        add_scaled(math, weight(i), from, to);
  }
}

/// to = weight · from
template <class Math, class T>
void copy_scaled(const Math& math, T weight, vector_view<const T> from, vector_view<T> to) noexcept {
  if constexpr (requires { math.copy_scaled(weight, from, to); })
    math.copy_scaled(weight, from, to);
  else
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = weight * from[i];
}

/// Σ a_i b_i, by default in a wide accumulator. Not inlined: compilers choose between multiply-add and multiply, add by
/// what is around a loop, and all strategies must get the same bits.
template <class Math, class T>
[[nodiscard, gnu::noinline]] T dot(const Math& math, vector_view<const T> a, vector_view<const T> b) noexcept {
  if constexpr (requires { math.dot(a, b); }) {
    return math.dot(a, b);
  } else {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return static_cast<T>(sum);
  }
}

/// The weight of the entry that slot s came from.
template <class T> [[nodiscard]] T slot_weight(const tape<T>& record, std::size_t slot) noexcept {
  return record.assignment().weights()[record.plan().entries()[slot]];
}

/// What the experts of slots [first, first + rows.rows()) read: x[token], times the weight where that is on the input;
/// zeros in padding slots.
template <class Context, class T>
void gather_input(const Context& ctx, const tape<T>& record, std::size_t first, matrix_view<const T> x,
                  matrix_view<T> rows) {
  for_each_row(ctx, rows.rows(), [&](std::size_t i) {
    const index_t token = record.plan().tokens()[first + i];
    if (token == no_index) {
      std::fill(rows.row(i).begin(), rows.row(i).end(), T(0));
      return;
    }
    const auto from = x.row(token);
    if (record.weights_on_input())
      copy_scaled(ctx.backend(), slot_weight(record, first + i), from, rows.row(i));
    else
      std::ranges::copy(from, rows.row(i).begin());
  });
}

/// ∂L/∂output of the experts of slots [first, first + d_out.rows()): dy[token], times the weight where that is on the
/// output; then also ∂L/∂weight = ⟨dy[token], output[slot]⟩. Zeros in padding slots.
template <class Context, class T>
void gather_output_gradient(const Context& ctx, const tape<T>& record, std::size_t first, matrix_view<const T> dy,
                            matrix_view<T> d_out, vector_view<T> d_weights) {
  for_each_row(ctx, d_out.rows(), [&](std::size_t i) {
    const std::size_t slot = first + i;
    const index_t token = record.plan().tokens()[slot];
    if (token == no_index) {
      std::fill(d_out.row(i).begin(), d_out.row(i).end(), T(0));
      return;
    }
    const auto from = dy.row(token);
    if (record.weights_on_input()) {
      std::ranges::copy(from, d_out.row(i).begin());
    } else {
      copy_scaled(ctx.backend(), slot_weight(record, slot), from, d_out.row(i));
      d_weights[record.plan().entries()[slot]] = dot(ctx.backend(), from, record.expert_output().row(slot));
    }
  });
}

/// The rest of the way back where weights are on the input: ∂L/∂weight = ⟨∂L/∂row, x[token]⟩, then d_rows becomes
/// ∂L/∂x = weight · ∂L/∂row.
template <class Context, class T>
void scale_input_gradient(const Context& ctx, const tape<T>& record, std::size_t first, matrix_view<T> d_rows,
                          vector_view<T> d_weights) {
  if (!record.weights_on_input())
    return;
  for_each_row(ctx, d_rows.rows(), [&](std::size_t i) {
    const std::size_t slot = first + i;
    const index_t token = record.plan().tokens()[slot];
    if (token == no_index)
      return;
    const vector_view<const T> row = d_rows.row(i);
    d_weights[record.plan().entries()[slot]] = dot(ctx.backend(), row, record.input().row(token));
    copy_scaled(ctx.backend(), slot_weight(record, slot), row, d_rows.row(i));
  });
}

} // namespace hmoe::dispatch
