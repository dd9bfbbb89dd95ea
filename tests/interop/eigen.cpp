// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/interop/eigen.hpp>

#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <type_traits>

using hmoe::matrix_view;

namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class M> M counting(Eigen::Index rows, Eigen::Index cols) {
  M m(rows, cols);
  for (Eigen::Index r = 0; r < rows; ++r)
    for (Eigen::Index c = 0; c < cols; ++c)
      m(r, c) = static_cast<typename M::Scalar>(10 * r + c);
  return m;
}

// What a function of the library sees.
struct seen {
  const float* data;
  std::size_t rows, cols, stride;
  float last;
};
seen look(matrix_view<const float> m) {
  return {m.data(), m.rows(), m.cols(), m.stride(), m(m.rows() - 1, m.cols() - 1)};
}
void set(matrix_view<float> m, std::size_t r, std::size_t c, float value) { m(r, c) = value; }

} // namespace

TEST_CASE("a row-major Eigen matrix is passed as it is") {
  auto m = counting<row_major>(3, 5);
  const auto v = look(m);
  CHECK(v.data == m.data());
  CHECK(v.rows == 3);
  CHECK(v.cols == 5);
  CHECK(v.stride == 5);
  CHECK(v.last == 24);
  set(m, 1, 2, 99);
  CHECK(m(1, 2) == 99);

  const row_major& constant = m;
  CHECK(look(constant).data == m.data());
  static_assert(std::is_convertible_v<const row_major&, matrix_view<const float>>);
  static_assert(!std::is_convertible_v<const row_major&, matrix_view<float>>);
  static_assert(!std::is_convertible_v<row_major&, matrix_view<double>>);
  static_assert(!std::is_convertible_v<row_major&, matrix_view<float, hmoe::device_space>>);
}

TEST_CASE("blocks keep the stride of their matrix") {
  auto m = counting<row_major>(6, 7);
  auto block = m.block(2, 1, 3, 4);
  const auto v = look(block);
  CHECK(v.data == &m(2, 1));
  CHECK(v.rows == 3);
  CHECK(v.cols == 4);
  CHECK(v.stride == 7);
  CHECK(v.last == m(4, 4));
  set(block, 0, 0, -5);
  CHECK(m(2, 1) == -5);

  const auto top = look(m.topRows(2));
  CHECK(top.rows == 2);
  CHECK(top.cols == 7);
  const auto one_row = look(m.row(4));
  CHECK(one_row.rows == 1);
  CHECK(one_row.cols == 7);
  CHECK(one_row.last == m(4, 6));
}

TEST_CASE("maps, references, fixed sizes, arrays, vectors") {
  std::array<float, 12> memory{};
  std::iota(memory.begin(), memory.end(), 0.0F);
  Eigen::Map<row_major> map(memory.data(), 3, 4);
  CHECK(look(map).data == memory.data());
  CHECK(look(map).last == 11);
  CHECK(look(Eigen::Map<const row_major>(memory.data(), 2, 6)).last == 11);
  const Eigen::Map<row_major, 0, Eigen::OuterStride<>> strided(memory.data(), 2, 3, Eigen::OuterStride<>(8));
  CHECK(look(strided).stride == 8);
  CHECK(look(strided).last == 10);
  const Eigen::Ref<const row_major> reference = map;
  CHECK(look(reference).data == memory.data());

  const auto fixed = counting<Eigen::Matrix<float, 2, 3, Eigen::RowMajor>>(2, 3);
  CHECK(look(fixed).stride == 3);
  CHECK(look(fixed).last == 12);
  const auto array = counting<Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(2, 2);
  CHECK(look(array).last == 11);
  const auto row = counting<Eigen::Matrix<float, 1, Eigen::Dynamic>>(1, 6);
  CHECK(look(row).cols == 6);
  CHECK(look(row).rows == 1);
}

TEST_CASE("values that are not neighbours in memory are refused, not misread") {
  std::array<float, 12> memory{};
  using spread = Eigen::Map<row_major, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  spread every_second(memory.data(), 2, 3, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(6, 2));
  CHECK_THROWS_AS((void)look(every_second), hmoe::error);
  spread neighbours(memory.data(), 2, 3, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(6, 1));
  CHECK(look(neighbours).stride == 6);
}

TEST_CASE("expressions that lie nowhere in memory are no views") {
  row_major a(2, 2), b(2, 2);
  static_assert(!std::is_convertible_v<decltype(a + b), matrix_view<const float>>);
  static_assert(!std::is_convertible_v<decltype(a * b), matrix_view<const float>>);
  static_assert(!std::is_convertible_v<int, matrix_view<const float>>);
}

TEST_CASE("as_eigen reads and writes the viewed memory") {
  hmoe::matrix<double> m(4, 5);
  for (std::size_t i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<double>(i);
  const auto part = m.view().row_block(1, 2).column_block(2, 3); // 7 8 9 | 12 13 14
  auto expression = hmoe::interop::as_eigen(part);
  CHECK(expression.rows() == 2);
  CHECK(expression.cols() == 3);
  CHECK(expression.sum() == 63);
  expression.row(1).setConstant(-1);
  CHECK(m(2, 2) == -1);
  CHECK(m(2, 4) == -1);
  CHECK(m(2, 1) == 11);
  CHECK(m(3, 0) == 15);

  const matrix_view<const double> reading = part;
  CHECK(hmoe::interop::as_eigen(reading)(1, 1) == -1);
  static_assert(std::is_const_v<std::remove_pointer_t<decltype(hmoe::interop::as_eigen(reading).data())>>);
  CHECK(hmoe::interop::as_eigen(matrix_view<double>{}).size() == 0);

  // and back
  const matrix_view<double> again = expression;
  CHECK(again.data() == part.data());
  CHECK(again.stride() == 5);
}
