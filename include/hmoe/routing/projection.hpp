// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>

namespace hmoe::routing {

namespace detail {

/// out[T×n] = x[T×d] · weightᵀ
template <execution_context Context, class T>
void project(const Context& ctx, matrix_view<const T> x, matrix_view<const T> weight, matrix_view<T> out) {
  hmoe::for_each_row_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
    ctx.backend().multiply_transposed(x.row_block(first, rows), weight, out.row_block(first, rows));
  });
}

/// d_weight += d_outᵀ x;  dx += d_out · weight
template <execution_context Context, class T>
void project_backward(const Context& ctx, matrix_view<const T> x, matrix_view<const T> weight,
                      matrix_view<const T> d_out, matrix_view<T> dx, matrix_view<T> d_weight) {
  hmoe::for_each_row_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
    ctx.backend().accumulate(d_out.row_block(first, rows), weight, dx.row_block(first, rows));
  });
  hmoe::for_each_row_block(
      ctx, x.cols(), [&](std::size_t first, std::size_t cols) { // each task owns its columns: no race
        ctx.backend().accumulate_transposed(d_out, x.column_block(first, cols), d_weight.column_block(first, cols));
      });
}

} // namespace detail

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
