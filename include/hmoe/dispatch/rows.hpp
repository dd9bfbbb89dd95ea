// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/assignment.hpp>

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

/// to += weight · from. Every dispatch adds up a token with this one function, in ascending order of experts, which is
/// what makes their results equal to the bit.
template <class T> void add_scaled(T weight, vector_view<const T> from, vector_view<T> to) noexcept {
  for (std::size_t i = 0; i < to.size(); ++i)
    to[i] += weight * from[i];
}

/// to = weight · from
template <class T> void copy_scaled(T weight, vector_view<const T> from, vector_view<T> to) noexcept {
  for (std::size_t i = 0; i < to.size(); ++i)
    to[i] = weight * from[i];
}

/// Σ a_i b_i in a wide accumulator.
template <class T> [[nodiscard]] T dot(vector_view<const T> a, vector_view<const T> b) noexcept {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return static_cast<T>(sum);
}

/// gathered[s] = rows[tokens[s]]
template <class Context, class T>
void gather(const Context& ctx, vector_view<const index_t> tokens, matrix_view<const T> rows, matrix_view<T> gathered) {
  for_each_row(ctx, tokens.size(), [&](std::size_t s) { std::ranges::copy(rows.row(tokens[s]), gathered.row(s).begin()); });
}

/// What backward needs of slots [first, first + count) before their expert runs: d_out[s] = weight · dy[token], the
/// gradient of the expert's output, and d_weights[entry] = ⟨dy[token], output[s]⟩.
template <class Context, class T>
void gather_output_gradients(const Context& ctx, const plan& by_expert, const assignment<T>& assigned,
                             std::size_t first, matrix_view<const T> output, matrix_view<const T> dy,
                             matrix_view<T> d_out, vector_view<T> d_weights) {
  for_each_row(ctx, d_out.rows(), [&](std::size_t i) {
    const std::size_t slot = first + i, entry = by_expert.entries()[slot];
    const auto from = dy.row(by_expert.tokens()[slot]);
    copy_scaled(assigned.weights()[entry], from, d_out.row(i));
    d_weights[entry] = dot(from, output.row(slot));
  });
}

} // namespace hmoe::dispatch
