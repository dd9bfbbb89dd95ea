// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix_view.hpp>

#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <type_traits>
#include <vector>

using hmoe::matrix_view;

namespace {
struct grid {
  std::vector<float> values = std::vector<float>(12);
  std::size_t rows = 3, cols = 4;
};
} // namespace

template <> struct hmoe::matrix_view_traits<grid> {
  static matrix_view<float> view(grid& g) { return {g.values.data(), g.rows, g.cols}; }
  static matrix_view<const float> view(const grid& g) { return {g.values.data(), g.rows, g.cols}; }
};

TEST_CASE("elements, rows and blocks of a strided view") {
  std::array<int, 20> memory{};
  std::iota(memory.begin(), memory.end(), 0);
  const matrix_view<int> view(memory.data() + 1, 4, 3, 5); // rows 1 2 3 | 6 7 8 | 11 12 13 | 16 17 18
  CHECK(view.rows() == 4);
  CHECK(view.cols() == 3);
  CHECK(view.stride() == 5);
  CHECK(view.size() == 12);
  CHECK(!view.contiguous());
  CHECK(view(0, 0) == 1);
  CHECK(view(2, 1) == 12);
  CHECK(view.row(3).size() == 3);
  CHECK(view.row(3)[2] == 18);

  const auto block = view.row_block(1, 2).column_block(1, 2); // 7 8 | 12 13
  CHECK(block.rows() == 2);
  CHECK(block.cols() == 2);
  CHECK(block.stride() == 5);
  CHECK(block(0, 0) == 7);
  CHECK(block(1, 1) == 13);
  block(1, 0) = -1;
  CHECK(memory[12] == -1);
  CHECK(memory[11] == 11);
  CHECK(memory[13] == 13);

  CHECK(view.row_block(4, 0).rows() == 0);
  CHECK(view.column_block(3, 0).size() == 0);
}

TEST_CASE("contiguous views") {
  std::array<int, 6> memory{};
  CHECK(matrix_view<int>(memory.data(), 2, 3).contiguous());
  CHECK(matrix_view<int>(memory.data(), 2, 3).stride() == 3);
  CHECK(matrix_view<int>(memory.data(), 1, 2, 6).contiguous()); // one row: its stride is never used
  CHECK(!matrix_view<int>(memory.data(), 2, 2, 3).contiguous());
  CHECK(matrix_view<int>{}.size() == 0);
  const auto none = matrix_view<int>(nullptr, 0, 6).column_block(2, 3); // a batch without rows may have no memory
  CHECK(none.data() == nullptr);
  CHECK(none.cols() == 3);
}

TEST_CASE("writing views become reading views, never the reverse") {
  static_assert(std::is_convertible_v<matrix_view<float>, matrix_view<const float>>);
  static_assert(!std::is_convertible_v<matrix_view<const float>, matrix_view<float>>);
  static_assert(!std::is_convertible_v<matrix_view<double>, matrix_view<float>>);
  static_assert(std::is_trivially_copyable_v<matrix_view<float>>);
  static_assert(!std::is_constructible_v<matrix_view<float>, grid, int>);
  std::array<float, 6> memory{};
  const matrix_view<float> writing(memory.data(), 2, 2, 3);
  const matrix_view<const float> reading = writing;
  CHECK(reading.data() == memory.data());
  CHECK(reading.rows() == 2);
  CHECK(reading.cols() == 2);
  CHECK(reading.stride() == 3);
}

TEST_CASE("a foreign matrix type takes part through matrix_view_traits") {
  grid g;
  const matrix_view<float> writing = g;
  writing(1, 2) = 7;
  CHECK(g.values[6] == 7);
  const grid& constant = g;
  const matrix_view<const float> reading = constant;
  CHECK(reading(1, 2) == 7);
  static_assert(!std::is_convertible_v<const grid&, matrix_view<float>>);
  const auto first = [](matrix_view<const float> view) { return view(0, 0); };
  CHECK(first(grid{.values = std::vector<float>(12, 3.0F)}) == 3); // a temporary may be read from
  static_assert(!std::is_convertible_v<grid&, matrix_view<float, hmoe::device_space>>);
}
