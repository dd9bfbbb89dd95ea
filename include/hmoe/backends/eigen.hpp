// SPDX-License-Identifier: MIT
#pragma once

// clang-format off
#include <hmoe/core/macros_off.hpp>
// clang-format on

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/interop/eigen.hpp>

#include <Eigen/Core>

namespace hmoe::backends {

/// Products by Eigen. The order of sums is Eigen's: the same call gives the same bits, but a token's output may
/// depend in its last bits on the rows it shares a product with. Eigen allocates its own packing buffers for large
/// products, and multiplies with several threads outside of parallel regions unless EIGEN_DONT_PARALLELIZE is
/// defined or Eigen::setNbThreads(1) was called.
struct eigen {
  template <class A, class B, class C>
  static void multiply_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0)
      interop::as_eigen(c).noalias() = interop::as_eigen(a) * interop::as_eigen(b).transpose();
  }
  template <class A, class B, class C> static void multiply(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0)
      interop::as_eigen(c).noalias() = interop::as_eigen(a) * interop::as_eigen(b);
  }
  template <class A, class B, class C> static void accumulate(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0)
      interop::as_eigen(c).noalias() += interop::as_eigen(a) * interop::as_eigen(b);
  }
  template <class A, class B, class C>
  static void accumulate_transposed(matrix_view<A> a, matrix_view<B> b, matrix_view<C> c) {
    if (c.size() != 0 && a.rows() != 0)
      interop::as_eigen(c).noalias() += interop::as_eigen(a).transpose() * interop::as_eigen(b);
  }
};

} // namespace hmoe::backends

// clang-format off
#include <hmoe/core/macros_on.hpp>
// clang-format on
