// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/execution/executor.hpp>

#include <cstddef>
#include <type_traits>

namespace hmoe {

namespace detail {
/// Enough rows that a kernel reads the other matrix seldom, and a multiple of its row blocks.
inline constexpr std::size_t rows_per_product_block = 96;

/// f(first, count) for blocks of rows, each a task. No member of split_products, where its names could hide those of a
/// user's backend.
template <executor Executor, class F>
void for_each_product_block(const Executor& executor, std::size_t rows, const F& f) {
  executor.for_each(blocks_of(rows, rows_per_product_block), [&](std::size_t i, std::size_t) {
    const block_range block = block_at(i, rows_per_product_block, rows);
    f(block.first, block.count);
  });
}
} // namespace detail

/// A backend whose products are shared among the workers of an executor, for an expert that has most of the work:
/// blocks of rows of the result are tasks, cut by size only, and no sum is cut. All else is the backend's own.
template <class Backend, class Executor> class split_products : public Backend {
public:
  split_products(const Backend& backend, const Executor& executor) : Backend(backend), executor_(executor) {}

  template <class A, class B, class C>
  void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    detail::for_each_product_block(executor_, c.rows(), [&](std::size_t first, std::size_t rows) {
      Backend::multiply_transposed(a.row_block(first, rows), b, c.row_block(first, rows));
    });
  }
  template <class A, class B, class C> void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    detail::for_each_product_block(executor_, c.rows(), [&](std::size_t first, std::size_t rows) {
      Backend::multiply(a.row_block(first, rows), b, c.row_block(first, rows));
    });
  }
  template <class A, class B, class C> void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    detail::for_each_product_block(executor_, c.rows(), [&](std::size_t first, std::size_t rows) {
      Backend::accumulate(a.row_block(first, rows), b, c.row_block(first, rows));
    });
  }
  template <class A, class B, class C>
  void accumulate_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) const {
    detail::for_each_product_block(executor_, c.rows(), [&](std::size_t first, std::size_t rows) {
      Backend::accumulate_transposed(a.column_block(first, rows), b, c.row_block(first, rows));
    });
  }

private:
  const Executor& executor_;
};

/// False when the executor's type fixes concurrency() to 1.
template <class Context>
concept can_split_products = !requires {
  typename std::bool_constant<Context::executor_type::concurrency() == 1>; // a constant?
  requires Context::executor_type::concurrency() == 1;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
