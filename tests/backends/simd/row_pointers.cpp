// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/row_pointers.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <utility>

namespace {

using hmoe::backends::formats::detail::row_pointers;

template <std::size_t Rows> void check_rows() {
  constexpr std::size_t step = 7;
  const std::array<float, 13 * step> values{};
  row_pointers<float, Rows> rows(values.data(), step);
  for (std::size_t k = 0; k < step; k += 2, rows.advance(2))
    for (std::size_t r = 0; r < Rows; ++r) {
      CAPTURE(Rows);
      CAPTURE(r);
      CHECK(rows[r] - values.data() == static_cast<std::ptrdiff_t>(r * step + k));
    }
}

} // namespace

TEST_CASE("Rows are a step apart, however many share a pointer") {
  [&]<std::size_t... I>(std::index_sequence<I...>) { (check_rows<I + 1>(), ...); }(std::make_index_sequence<12>{});
}
