// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <doctest/doctest.h>

#include <vector>

using hmoe::vector_view;

TEST_CASE("scaled rows and dot products") {
  const std::vector<float> a{1, 2, 3}, b{4, -5, 6};
  std::vector<float> to{10, 20, 30};
  const hmoe::backends::reference none;
  hmoe::rows::add_scaled(none, 2.0F, vector_view<const float>(a), vector_view<float>(to));
  CHECK(to == std::vector<float>{12, 24, 36});
  hmoe::rows::copy_scaled(none, -1.0F, vector_view<const float>(a), vector_view<float>(to));
  CHECK(to == std::vector<float>{-1, -2, -3});
  CHECK(hmoe::rows::dot(none, vector_view<const float>(a), vector_view<const float>(b)) == 12);
  // A wide accumulator: 1 survives between two large numbers.
  const std::vector<float> large{1e8F, 1, -1e8F}, ones{1, 1, 1};
  CHECK(hmoe::rows::dot(none, vector_view<const float>(large), vector_view<const float>(ones)) == 1);
}

TEST_CASE("a weighted sum of rows leaves out the empty ones") {
  const std::vector<float> a{1, 2, 3}, b{4, -5, 6};
  std::vector<float> to{10, 20, 30};
  const hmoe::backends::reference none;
  const auto weight = [](std::size_t i) { return i == 0 ? 2.0F : -1.0F; };
  const auto row = [&](std::size_t i) {
    return i == 0 ? vector_view<const float>(a) : i == 1 ? vector_view<const float>{} : vector_view<const float>(b);
  };
  hmoe::rows::weighted_sum(none, 3, weight, row, vector_view<float>(to));
  CHECK(to == std::vector<float>{-2, 9, 0});
  hmoe::rows::weighted_sum(none, 0, weight, row, vector_view<float>(to));
  CHECK(to == std::vector<float>{0, 0, 0});
}
