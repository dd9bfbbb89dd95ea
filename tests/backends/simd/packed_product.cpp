// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/backends/simd/packed_product.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;
using arch = xsimd::default_arch;

namespace {

template <class T> bool same_bits(const matrix<T>& a, const matrix<T>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Rows within and beyond what is taken together, columns with every kind of rest, depths in one and more parts.
constexpr std::size_t row_counts[] = {1, 5, 13, 64, 150}, column_counts[] = {1, 15, 16, 33, 100, 290},
                      depths[] = {1, 7, 256, 530};

} // namespace

TEST_CASE_TEMPLATE("products of packed rows have the bits of the plain ones", T, float, double) {
  support::random_source random(73);
  for (const std::size_t m : row_counts)
    for (const std::size_t n : column_counts)
      for (const std::size_t k : depths) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        const matrix<T> a = support::random_matrix<T>(random, m, k + 3),
                        b = support::random_matrix<T>(random, k, n + 2),
                        bt = support::random_matrix<T>(random, n, k + 1);
        const auto rows = a.view().column_block(1, k), columns = b.view().column_block(2, n),
                   turned = bt.view().column_block(1, k);
        using form = packed_rows<T, arch>;
        std::vector<T> packed(form::size(m, k));
        const std::size_t half = row_blocks<arch>(m) / 2; // as two pieces of work would
        form::pack(rows, 0, half, packed.data());
        form::pack(rows, half, row_blocks<arch>(m) - half, packed.data());
        // The columns beside the output must come out untouched as well.
        matrix<T> ours(m, n + 2), expected(m, n + 2);
        for (matrix<T>* c : {&ours, &expected})
          std::fill_n(c->data(), c->size(), T(7));
        multiply_packed_rows<layout::plain, arch, T>(packed.data(), columns, ours.view().column_block(1, n));
        backends::simd<>::multiply(rows, columns, expected.view().column_block(1, n));
        CHECK(same_bits(ours, expected));
        multiply_packed_rows<layout::transposed, arch, T>(packed.data(), turned, ours.view().column_block(1, n));
        backends::simd<>::multiply_transposed(rows, turned, expected.view().column_block(1, n));
        CHECK(same_bits(ours, expected));
      }
}

TEST_CASE_TEMPLATE("products onto packed columns have the bits of the plain ones", T, float, double) {
  support::random_source random(74);
  for (const std::size_t m : {std::size_t{1}, std::size_t{7}, cache_blocks<T, arch>::rows})
    for (const std::size_t n : column_counts)
      for (const std::size_t k : depths) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        const matrix<T> at = support::random_matrix<T>(random, k, m + 1),
                        b = support::random_matrix<T>(random, k, n + 2);
        const auto turned = at.view().column_block(1, m), columns = b.view().column_block(2, n);
        using form = packed_columns<T, arch>;
        std::vector<T> packed(form::size(n, k));
        const std::size_t half = form::panels(n) / 2;
        form::pack(columns, 0, half, packed.data());
        form::pack(columns, half, form::panels(n) - half, packed.data());
        matrix<T> ours = support::random_matrix<T>(random, m, n + 2), expected = ours;
        accumulate_packed_columns<arch, T>(true, turned, packed.data(), ours.view().column_block(1, n));
        backends::simd<>::accumulate_transposed(turned, columns, expected.view().column_block(1, n));
        CHECK(same_bits(ours, expected));
      }
}
