// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>

#include <concepts>

namespace hmoe {

/// The matrix products that experts and routers are written in; every CPU backend has them. For row-major views of
/// fitting shapes, none of which overlaps the output:
///   multiply_transposed(A[m×k], B[n×k], C[m×n])     C  = A·Bᵀ   (y = x Wᵀ: weights as checkpoints store them)
///   multiply(A[m×n], B[n×k], C[m×k])                C  = A·B    (dx = dy W)
///   accumulate(A[m×n], B[n×k], C[m×k])              C += A·B
///   accumulate_transposed(A[m×n], B[m×k], C[n×k])   C += Aᵀ·B   (dW += dyᵀ x)
template <class B, class T>
concept matrix_products = requires(const B& math, matrix_view<const T> a, matrix_view<const T> b, matrix_view<T> c) {
  math.multiply_transposed(a, b, c);
  math.multiply(a, b, c);
  math.accumulate(a, b, c);
  math.accumulate_transposed(a, b, c);
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
