// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <cstddef>

namespace support {

/// The reference backend, and how much it was asked to do. For one thread.
struct counting_backend {
  struct counts {
    std::size_t products = 0;      ///< calls with something to compute
    std::size_t multiply_adds = 0; ///< in all of them
  };
  counts* seen;

  template <class A, class B, class C>
  void multiply_transposed(hmoe::matrix_view<A> a, hmoe::matrix_view<B> b, hmoe::matrix_view<C> c) const {
    count(a.rows() * a.cols() * b.rows());
    hmoe::backends::reference::multiply_transposed(a, b, c);
  }
  template <class A, class B, class C>
  void multiply(hmoe::matrix_view<A> a, hmoe::matrix_view<B> b, hmoe::matrix_view<C> c) const {
    count(a.rows() * a.cols() * b.cols());
    hmoe::backends::reference::multiply(a, b, c);
  }
  template <class A, class B, class C>
  void accumulate(hmoe::matrix_view<A> a, hmoe::matrix_view<B> b, hmoe::matrix_view<C> c) const {
    count(a.rows() * a.cols() * b.cols());
    hmoe::backends::reference::accumulate(a, b, c);
  }
  template <class A, class B, class C>
  void accumulate_transposed(hmoe::matrix_view<A> a, hmoe::matrix_view<B> b, hmoe::matrix_view<C> c) const {
    count(a.rows() * a.cols() * b.cols());
    hmoe::backends::reference::accumulate_transposed(a, b, c);
  }

private:
  void count(std::size_t multiply_adds) const {
    seen->products += multiply_adds == 0 ? 0 : 1;
    seen->multiply_adds += multiply_adds;
  }
};

} // namespace support
