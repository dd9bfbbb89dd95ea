// SPDX-License-Identifier: MIT
// expect: hmoe: a temporary matrix was given as an output, or as the source of a view to write through
#include <hmoe/interop/eigen.hpp>

using namespace hmoe;

using tokens = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void fill(matrix_view<float> y);
float first(matrix_view<const float> x);

float use(tokens& y) {
  fill(y);
  fill(y.topRows(2)); // refers to y
#ifndef HMOE_MUST_COMPILE
  fill(tokens(3, 8));
#endif
  return first(tokens(3, 8));
}
