// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include "routing/selections/coarse_rows.hpp"
#include "routing/selections/masked_top_k.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

namespace routing = hmoe::routing;
using namespace coarse;
using support::error_of;

TEST_CASE("a selection bias moves the choice of any selection, also one with scratch of its own") {
  support::random_source random(7);
  for (int round = 0; round < 300; ++round) {
    const auto row = coarse_row(random, 8, 0, 1), bias = coarse_row(random, 8, -2, 1);
    std::vector<double> sums(8);
    for (std::size_t i = 0; i < 8; ++i)
      sums[i] = row[i] + bias[i];
    routing::biased<double, routing::top_k<>> plain(8, {3});
    routing::biased<double, routing::group_limited<>> grouped(8, {4, 2, 3});
    std::copy(bias.begin(), bias.end(), plain.bias().begin());
    std::copy(bias.begin(), bias.end(), grouped.bias().begin());
    CHECK(choose(plain, row) == best(sums, 3));
    CHECK(choose(grouped, row) == masked_top_k(sums, 4, 2, 3, true, -std::numeric_limits<double>::infinity()));
    CHECK(choose(grouped.view(), row) == choose(grouped, row));
  }
  static_assert(std::is_trivially_copyable_v<routing::biased_view<float, routing::group_limited<>>>);
  CHECK(routing::biased<double, routing::top_k<>>(8, {3}).max_selected(8) == 3);
  CHECK(routing::biased<double, routing::top_p>(8, 0.5).max_selected(8) == 8);
  CHECK(error_of([] { routing::biased<float, routing::top_k<>>(8, {3}).validate(9); }) ==
        "hmoe: the selection bias is for 8 experts, there are 9");
  CHECK(error_of([] { routing::biased<float, routing::top_k<>>(8, {9}).validate(8); }) ==
        "hmoe: top_k with k = 9 for 8 experts: k must be 1 to 8");
}
