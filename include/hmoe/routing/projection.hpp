// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>

#include <algorithm>

namespace hmoe::routing {

namespace detail {

/// Rows or columns of a router product that one task computes: work is divided by size, never by threads.
inline constexpr std::size_t score_block = 64;

/// f(first, count) over blocks of `total`.
template <class Context, class F> void for_each_block(const Context& ctx, std::size_t total, F&& f) {
  ctx.executor().for_each((total + score_block - 1) / score_block, [&](std::size_t task, std::size_t) {
    const std::size_t first = task * score_block;
    f(first, std::min(score_block, total - first));
  });
}

/// f(row) for each row below count.
template <class Context, class F> void for_each_row(const Context& ctx, std::size_t count, F&& f) {
  for_each_block(ctx, count, [&](std::size_t first, std::size_t rows) {
    for (std::size_t r = first; r < first + rows; ++r)
      f(r);
  });
}

/// out[T×n] = x[T×d] · weightᵀ
template <class Context, class T>
void project(const Context& ctx, matrix_view<const T> x, matrix_view<const T> weight, matrix_view<T> out) {
  for_each_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
    ctx.backend().multiply_transposed(x.row_block(first, rows), weight, out.row_block(first, rows));
  });
}

/// d_weight += d_outᵀ x;  dx += d_out · weight
template <class Context, class T>
void project_backward(const Context& ctx, matrix_view<const T> x, matrix_view<const T> weight,
                      matrix_view<const T> d_out, matrix_view<T> dx, matrix_view<T> d_weight) {
  for_each_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
    ctx.backend().accumulate(d_out.row_block(first, rows), weight, dx.row_block(first, rows));
  });
  for_each_block(ctx, x.cols(), [&](std::size_t first, std::size_t cols) { // each task owns its columns: no race
    ctx.backend().accumulate_transposed(d_out, x.column_block(first, cols), d_weight.column_block(first, cols));
  });
}

} // namespace detail

} // namespace hmoe::routing
