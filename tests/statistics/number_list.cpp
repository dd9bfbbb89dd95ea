// SPDX-License-Identifier: MIT
#include <hmoe/core/vector_view.hpp>
#include <hmoe/statistics/number_list.hpp>

#include <doctest/doctest.h>

#include <array>
#include <list>
#include <span>
#include <string>
#include <vector>

namespace statistics = hmoe::statistics;

static_assert(statistics::number_list<std::vector<int>>);
static_assert(statistics::number_list<std::span<const float>>);
static_assert(statistics::number_list<hmoe::vector_view<const std::size_t>>);
static_assert(!statistics::number_list<std::list<int>>);
static_assert(!statistics::number_list<std::vector<std::string>>);

TEST_CASE("numbers of any type are read as double") {
  const std::array<unsigned, 3> values{4000000000U, 1, 2};
  CHECK(statistics::detail::count_of(values) == 3);
  CHECK(statistics::detail::at(values, 0) == 4e9);
  CHECK(statistics::detail::sum_of(values) == 4000000003.0);
  CHECK(statistics::detail::sum_of(std::vector<float>{}) == 0);
}
