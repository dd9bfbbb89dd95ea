// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/execution/backend.hpp>

#include <doctest/doctest.h>

using hmoe::matrix_view;

namespace {
template <class T> struct products_of {
  void multiply_transposed(matrix_view<const T>, matrix_view<const T>, matrix_view<T>) const {}
  void multiply(matrix_view<const T>, matrix_view<const T>, matrix_view<T>) const {}
  void accumulate(matrix_view<const T>, matrix_view<const T>, matrix_view<T>) const {}
  void accumulate_transposed(matrix_view<const T>, matrix_view<const T>, matrix_view<T>) const {}
};
struct both : products_of<float>, products_of<double> {
  using products_of<float>::multiply_transposed, products_of<double>::multiply_transposed;
  using products_of<float>::multiply, products_of<double>::multiply;
  using products_of<float>::accumulate, products_of<double>::accumulate;
  using products_of<float>::accumulate_transposed, products_of<double>::accumulate_transposed;
};
} // namespace

TEST_CASE("a backend has the products of float and of double; everything else is optional") {
  static_assert(hmoe::backend<both>);
  static_assert(!hmoe::backend<products_of<float>>);
  static_assert(!hmoe::backend<products_of<double>>);
  static_assert(hmoe::backend<hmoe::backends::reference>);
  static_assert(!hmoe::backend<int>);
}
