// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/scalar.hpp>

namespace hmoe::backends {

/// The definition of hmoe's arithmetic: plain loops, sums over k in ascending order in a double accumulator, rounded
/// once at the end. Every other backend is tested against it. Shapes as in hmoe/core/products.hpp.
struct reference {
  template <class A, class B, class C>
  static void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    for (std::size_t i = 0; i < c.rows(); ++i)
      for (std::size_t j = 0; j < c.cols(); ++j) {
        accumulator_t<C> sum = 0;
        for (std::size_t k = 0; k < a.cols(); ++k)
          sum += static_cast<accumulator_t<C>>(a(i, k)) * static_cast<accumulator_t<C>>(b(j, k));
        c(i, j) = static_cast<C>(sum);
      }
  }

  template <class A, class B, class C>
  static void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    for (std::size_t i = 0; i < c.rows(); ++i)
      for (std::size_t j = 0; j < c.cols(); ++j)
        c(i, j) = static_cast<C>(row_times_column(a, b, i, j));
  }

  template <class A, class B, class C>
  static void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    for (std::size_t i = 0; i < c.rows(); ++i)
      for (std::size_t j = 0; j < c.cols(); ++j)
        c(i, j) = static_cast<C>(static_cast<accumulator_t<C>>(c(i, j)) + row_times_column(a, b, i, j));
  }

  template <class A, class B, class C>
  static void accumulate_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) noexcept {
    for (std::size_t i = 0; i < c.rows(); ++i)
      for (std::size_t j = 0; j < c.cols(); ++j) {
        accumulator_t<C> sum = 0;
        for (std::size_t m = 0; m < a.rows(); ++m)
          sum += static_cast<accumulator_t<C>>(a(m, i)) * static_cast<accumulator_t<C>>(b(m, j));
        c(i, j) = static_cast<C>(static_cast<accumulator_t<C>>(c(i, j)) + sum);
      }
  }

private:
  template <class A, class B>
  static double row_times_column(matrix_view<A> a, matrix_view<B> b, std::size_t i, std::size_t j) noexcept {
    double sum = 0;
    for (std::size_t k = 0; k < a.cols(); ++k)
      sum += static_cast<double>(a(i, k)) * static_cast<double>(b(k, j));
    return sum;
  }
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
