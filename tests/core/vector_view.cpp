// SPDX-License-Identifier: MIT
#include <hmoe/core/vector_view.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <list>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

using hmoe::vector_view;

TEST_CASE("a view reads and writes the memory of others") {
  std::vector<int> values{1, 2, 3, 4};
  const vector_view<int> view = values;
  CHECK(view.data() == values.data());
  CHECK(view.size() == 4);
  view[2] = 30;
  CHECK(values[2] == 30);

  const vector_view<const int> reading = view;
  CHECK(reading.data() == values.data());
  CHECK(std::accumulate(reading.begin(), reading.end(), 0) == 37);

  const auto middle = view.subview(1, 2);
  CHECK(std::ranges::equal(middle, std::array{2, 30}));
  CHECK(view.subview(4, 0).empty());
}

TEST_CASE("what converts to a view") {
  const std::vector<float> constant{1, 2};
  CHECK(vector_view<const float>(constant).size() == 2);
  std::array<float, 3> array{1, 2, 3};
  CHECK(vector_view<float>(array).data() == array.data());
  const std::span<float> span = array;
  CHECK(vector_view<const float>(span).size() == 3);

  static_assert(std::is_convertible_v<vector_view<float>, vector_view<const float>>);
  static_assert(!std::is_convertible_v<vector_view<const float>, vector_view<float>>);
  static_assert(!std::is_convertible_v<const std::vector<float>&, vector_view<float>>);
  static_assert(!std::is_convertible_v<std::vector<double>&, vector_view<float>>);
  static_assert(!std::is_convertible_v<std::list<float>&, vector_view<float>>);
  static_assert(std::is_trivially_copyable_v<vector_view<float>>); // goes to device kernels by value
}

TEST_CASE("an empty view") {
  const vector_view<double> none;
  CHECK(none.empty());
  CHECK(none.data() == nullptr);
  CHECK(none.begin() == none.end());
}

TEST_CASE("a view is a range that does not own") {
  static_assert(std::ranges::contiguous_range<vector_view<int>>);
  static_assert(std::ranges::borrowed_range<vector_view<int>>);
  static_assert(std::ranges::view<vector_view<int>>);
  std::vector<int> values{3, 1, 2};
  std::ranges::sort(vector_view<int>(values));
  CHECK(values == std::vector{1, 2, 3});
}
