// SPDX-License-Identifier: MIT
// expect: hmoe: a matrix has one token per row with contiguous values: declare the Eigen matrix with Eigen::RowMajor
#include <hmoe/interop/eigen.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using tokens = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
#else
using tokens = Eigen::MatrixXf;
#endif

float first(matrix_view<const float> x) { return x(0, 0); }
float first_of(const tokens& x) { return first(x); }
