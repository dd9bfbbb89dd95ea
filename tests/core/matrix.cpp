// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <utility>

using hmoe::matrix;
using hmoe::matrix_view;

namespace {
double first_of(matrix_view<const double> view) { return view(0, 0); }
void double_all(matrix_view<double> view) {
  for (std::size_t r = 0; r < view.rows(); ++r)
    for (double& value : view.row(r))
      value *= 2;
}
} // namespace

TEST_CASE("a matrix is row-major, aligned, and starts with zeros") {
  matrix<float> m(3, 5);
  CHECK(m.rows() == 3);
  CHECK(m.cols() == 5);
  CHECK(m.size() == 15);
  CHECK(reinterpret_cast<std::uintptr_t>(m.data()) % 64 == 0);
  for (std::size_t i = 0; i < m.size(); ++i)
    CHECK(m.data()[i] == 0.0F);
  m(2, 1) = 4;
  CHECK(m.data()[11] == 4);
  CHECK(m.row(2)[1] == 4);
  CHECK(std::as_const(m)(2, 1) == 4);
  CHECK(std::as_const(m).row(2)[1] == 4);
  CHECK(m.view().contiguous());
  m.set_zero();
  CHECK(m(2, 1) == 0);
}

TEST_CASE("a matrix passes for a view") {
  matrix<double> m(2, 2);
  m(0, 0) = 3;
  double_all(m);
  const matrix<double>& constant = m;
  CHECK(first_of(m) == 6);
  CHECK(first_of(constant) == 6);
  static_assert(!std::is_convertible_v<const matrix<double>&, matrix_view<double>>);
}

TEST_CASE("resizing within what was there before keeps the memory") {
  matrix<int> m(4, 6);
  const int* before = m.data();
  m.resize_for_overwrite(3, 8);
  CHECK(m.data() == before);
  CHECK(m.rows() == 3);
  m.resize_for_overwrite(0, 8);
  CHECK(m.size() == 0);
  CHECK(m.cols() == 8);
  m.resize_for_overwrite(6, 4);
  CHECK(m.data() == before);
}

TEST_CASE("copying and moving") {
  matrix<int> a(2, 3);
  a(1, 2) = 9;
  matrix<int> copy = a;
  copy(1, 2) = 1;
  CHECK(a(1, 2) == 9);
  auto& same = a;
  a = same;
  CHECK(a(1, 2) == 9);
  const matrix<int> moved = std::move(a);
  CHECK(moved.rows() == 2);
  CHECK(moved(1, 2) == 9);
  CHECK(a.rows() * a.cols() ==
        a.size()); // NOLINT(bugprone-use-after-move): a moved-from matrix does not claim elements
}

TEST_CASE("sizes whose product does not fit are refused with both numbers") {
  const std::size_t side = std::size_t{1} << 40U; // side² wraps around to 0
  matrix<float> m(2, 2);
  m(1, 1) = 5;
  const std::string text = std::to_string(side);
  try {
    m.resize_for_overwrite(side, side);
    FAIL("a matrix of 2^80 values was made");
  } catch (const hmoe::error& failure) {
    CHECK(std::string(failure.what()).find(text) != std::string::npos);
  }
  CHECK(m.rows() == 2);
  CHECK(m(1, 1) == 5);
}
