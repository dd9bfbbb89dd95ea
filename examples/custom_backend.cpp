// SPDX-License-Identifier: MIT
// A backend of your own: four matrix products for float and double are one. What it does not have itself (activations,
// sums of rows, …) the library does in plain loops; the operations that it may add are in
// hmoe/execution/operations.hpp.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/backend_laws.hpp>

#include <algorithm>
#include <cmath>
#include <iostream>

using namespace hmoe;

/// Products in blocks of columns that stay in the cache. Sums run over k in order, so that the output of a token does
/// not depend on the batch that it comes in.
struct blocked {
  std::size_t block_columns = 64;

  /// C[m×n] = A[m×k] B[n×k]ᵀ
  template <class T> void multiply_transposed(matrix_view<const T> a, matrix_view<const T> b, matrix_view<T> c) const {
    for (std::size_t first = 0; first < b.rows(); first += block_columns)
      for (std::size_t i = 0; i < a.rows(); ++i)
        for (std::size_t j = first; j < std::min(first + block_columns, b.rows()); ++j) {
          T sum = 0;
          for (std::size_t l = 0; l < a.cols(); ++l)
            sum += a(i, l) * b(j, l);
          c(i, j) = sum;
        }
  }
  /// C[m×k] = A[m×n] B[n×k]
  template <class T> void multiply(matrix_view<const T> a, matrix_view<const T> b, matrix_view<T> c) const {
    for (std::size_t i = 0; i < c.rows(); ++i)
      for (std::size_t j = 0; j < c.cols(); ++j)
        c(i, j) = 0;
    accumulate(a, b, c);
  }
  /// C[m×k] += A[m×n] B[n×k]
  template <class T> void accumulate(matrix_view<const T> a, matrix_view<const T> b, matrix_view<T> c) const {
    for (std::size_t i = 0; i < a.rows(); ++i)
      for (std::size_t l = 0; l < a.cols(); ++l)
        for (std::size_t j = 0; j < b.cols(); ++j)
          c(i, j) += a(i, l) * b(l, j);
  }
  /// C[n×k] += A[m×n]ᵀ B[m×k]
  template <class T>
  void accumulate_transposed(matrix_view<const T> a, matrix_view<const T> b, matrix_view<T> c) const {
    for (std::size_t l = 0; l < a.rows(); ++l)
      for (std::size_t i = 0; i < a.cols(); ++i)
        for (std::size_t j = 0; j < b.cols(); ++j)
          c(i, j) += a(l, i) * b(l, j);
  }
};

int main() {
  // Every product over odd shapes, beside the reference.
  const testing::backend_report laws = testing::check_backend(blocked{});
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text()) << laws.operations() << "\n";

  moe_layer layer{expert_set{experts::glu_bank<double, experts::silu>{48, {16, 70, 1, 129}}},
                  routing::top_k_router<double>{48, 4, 2}};
  layer.initialize(seed{1}, {.router_stddev = 0.5});
  matrix<double> x(100, 48);
  fill_normal(vector_view<double>(x.data(), x.size()), 1.0, seed{2}, 0);

  matrix<double> y(x.rows(), x.cols()), expected(x.rows(), x.cols());
  layer.forward(context{blocked{}, executors::openmp{}}, x, y);
  layer.forward(context{backends::reference{}}, x, expected);
  double worst = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    worst = std::max(worst, std::abs(y.data()[i] - expected.data()[i]));
  std::cout << "largest difference to the reference: " << worst << "\n";
  return laws.ok() && worst < 1e-12 ? 0 : 1;
}
