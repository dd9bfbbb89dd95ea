// SPDX-License-Identifier: MIT
#include "kernel.hpp"

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/error.hpp>

#include "compiled_for.hpp"

void HMOE_ISA::multiply(hmoe::matrix_view<const float> x, hmoe::matrix_view<const float> w,
                        hmoe::matrix_view<float> y) {
  hmoe::require(x.cols() == w.cols(), "x has ", x.cols(), " columns, w has ", w.cols());
  ++calls;
  hmoe::backends::simd<>::multiply_transposed(x, w, y);
}
