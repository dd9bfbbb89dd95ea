// SPDX-License-Identifier: MIT
#include <hmoe/core/overlap.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <set>
#include <vector>

using hmoe::matrix_view;

TEST_CASE("blocks of rows and other types") {
  std::array<float, 24> memory{};
  const matrix_view<float> all(memory.data(), 4, 6);
  CHECK(overlaps(all, all));
  CHECK(!overlaps(all.row_block(0, 2), all.row_block(2, 2)));
  CHECK(overlaps(all.row_block(0, 3), all.row_block(2, 2)));
  CHECK(overlaps(all.row_block(2, 2), all.row_block(0, 3)));
  CHECK(overlaps(all, all.row_block(2, 1).column_block(2, 1)));
  CHECK(!overlaps(all, all.row_block(2, 0))); // nothing has no bytes
  CHECK(!overlaps(all.column_block(1, 0), all));
  CHECK(!overlaps(matrix_view<float>{}, all));
  // The last row ends at its last column, not at its stride.
  CHECK(!overlaps(all.row_block(0, 1).column_block(0, 3), all.row_block(0, 1).column_block(3, 3)));
  // Different element types over the same bytes.
  CHECK(overlaps(all, matrix_view<const char>(reinterpret_cast<const char*>(memory.data() + 23), 1, 1)));
}

TEST_CASE("blocks of columns of one matrix share no byte") {
  std::array<float, 48> memory{};
  const matrix_view<float> both(memory.data(), 3, 16);
  CHECK(!overlaps(both.column_block(0, 8), both.column_block(8, 8)));
  CHECK(!overlaps(both.column_block(8, 8), both.column_block(0, 8)));
  CHECK(overlaps(both.column_block(0, 9), both.column_block(8, 8)));
  CHECK(!overlaps(both.column_block(0, 4), both.column_block(4, 12)));
  // The second row of one lies between columns of the other.
  CHECK(!overlaps(both.column_block(0, 8), both.row_block(1, 1).column_block(8, 8)));
  CHECK(overlaps(both.column_block(0, 8), both.row_block(1, 1).column_block(7, 2)));
}

TEST_CASE("overlaps is what counting the bytes says") {
  support::random_source random(21);
  std::vector<char> memory(400);
  const auto bytes_of = [](const auto& view) {
    std::set<const char*> bytes;
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (std::size_t c = 0; c < view.cols(); ++c)
        bytes.insert(view.data() + r * view.stride() + c);
    return bytes;
  };
  int shared = 0, apart = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto view = [&] {
      const std::size_t rows = random.size(0, 6), cols = random.size(0, 9);
      const std::size_t stride = random.size(0, 3) == 0 ? random.size(0, 9) : cols + random.size(0, 30);
      return matrix_view<const char>(memory.data() + random.size(0, 60), rows, cols, stride);
    };
    const auto a = view(), b = view();
    bool expected = false;
    const auto of_a = bytes_of(a), of_b = bytes_of(b);
    for (const char* byte : of_a)
      expected = expected || of_b.contains(byte);
    CHECK(overlaps(a, b) == expected);
    ++(expected ? shared : apart);
    CHECK(rows_overlap(a) == (of_a.size() < a.size()));
  }
  CHECK(shared > 500);
  CHECK(apart > 500);
}

TEST_CASE("an output that cannot be written is refused with its numbers") {
  std::array<float, 64> memory{};
  const matrix_view<const float> in(memory.data(), 2, 4), folded(memory.data() + 16, 2, 4, 3), same = in;
  const matrix_view<const float> out(memory.data() + 16, 2, 4);
  CHECK(support::error_of([&] { check_output(in, out, "y"); }) == "no error");
  CHECK(support::error_of([&] { check_output(folded, out.row_block(0, 0), "y"); }) == "no error");
  CHECK(support::error_of([&] { check_output(in, same, "dx"); }) ==
        "hmoe: dx overlaps the input; they must be different memory");
  const matrix_view<const float> nothing(nullptr, 5, 8);
  CHECK(support::error_of([&] { check_output(nothing, out, "y"); }) ==
        "hmoe: the input has 5 x 8 values at a null pointer");
  CHECK(support::error_of([&] { check_output(in, nothing, "y"); }) == "hmoe: y has 5 x 8 values at a null pointer");
  CHECK(support::error_of([&] { check_output(in, folded, "y"); }) ==
        "hmoe: the rows of y overlap one another: they have 4 values and begin 3 apart");
}
