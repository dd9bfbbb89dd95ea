// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/kernel.hpp>
#include <hmoe/backends/simd/packing.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;

namespace {

template <class T, std::size_t Width> void check_rows() {
  support::random_source random(71);
  for (const std::size_t rows : {std::size_t{1}, std::size_t{2}, Width - 1, Width})
    for (const std::size_t depth : {1U, 3U, 4U, 15U, 16U, 17U, 40U, 67U})
      for (const std::size_t first : {0U, 5U}) {
        CAPTURE(rows);
        CAPTURE(depth);
        const matrix<T> from = support::random_matrix<T>(random, rows, first + depth + 2);
        std::vector<T> to(Width * depth + 1, T(77));
        interleave_rows<Width, T>(from.view(), first, depth, to.data());
        for (std::size_t k = 0; k < depth; ++k)
          for (std::size_t i = 0; i < Width; ++i)
            REQUIRE(to[k * Width + i] == from(std::min(i, rows - 1), first + k));
        CHECK(to.back() == 77); // nothing is written beyond
      }
}

template <class T, std::size_t Width, class V> void check_columns() {
  support::random_source random(72);
  for (const std::size_t columns : {std::size_t{1}, Width - 1, Width, Width + 1, 3 * Width - 1, 3 * Width})
    for (const std::size_t depth : {1U, 2U, 33U}) {
      CAPTURE(columns);
      CAPTURE(depth);
      const std::size_t panels = (columns + Width - 1) / Width, step = Width * depth + 5;
      const matrix<T> from = support::random_matrix<T>(random, depth + 4, columns + 3);
      std::vector<T> to(panels * step, T(77));
      copy_columns<Width, V, T>(from.view().column_block(2, columns), 4, depth, to.data(), step);
      for (std::size_t p = 0; p < panels; ++p) {
        for (std::size_t k = 0; k < depth; ++k)
          for (std::size_t i = 0; i < Width; ++i) {
            const std::size_t c = p * Width + i;
            REQUIRE(to[p * step + k * Width + i] == (c < columns ? from(4 + k, 2 + c) : T(0)));
          }
        for (std::size_t i = Width * depth; i < step; ++i)
          REQUIRE(to[p * step + i] == 77);
      }
    }
}

} // namespace

TEST_CASE_TEMPLATE("rows are packed side by side", T, float, double) {
  check_rows<T, 4>();
  check_rows<T, 8>();
  check_rows<T, 12>();
  check_rows<T, 16>();
  check_rows<T, 32>();
}

TEST_CASE_TEMPLATE("columns are packed as they are, the last panel filled up with zeros", T, float, double) {
  using wide = xsimd::batch<T>;
  check_columns<T, 6, square_vector<T>>();
  check_columns<T, 12, square_vector<T>>();
  check_columns<T, 2 * wide::size, wide>();
}
