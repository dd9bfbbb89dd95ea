// SPDX-License-Identifier: MIT
// Selections of one token beyond top-k, top-p and threshold, against brute force over random rows, many of them with
// ties.
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/testing/selection_laws.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <type_traits>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;
using ids = std::vector<std::size_t>;
using support::error_of;

namespace {
template <class T, class Selection> ids choose(const Selection& select, const std::vector<T>& row) {
  std::vector<index_t> chosen(row.size());
  std::vector<T> scratch(routing::selection_scratch(select, row.size()), std::numeric_limits<T>::quiet_NaN());
  const std::size_t count =
      routing::select_row(select, vector_view<const T>(row), vector_view<index_t>(chosen), vector_view<T>(scratch));
  ids result(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(count));
  std::sort(result.begin(), result.end());
  return result;
}

/// Ids in descending value, the lower id first on ties.
ids ranking(const std::vector<double>& values) {
  ids order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  return order;
}
ids best(const std::vector<double>& values, std::size_t k) {
  ids order = ranking(values);
  order.resize(k);
  std::sort(order.begin(), order.end());
  return order;
}

/// Values in steps of 1/4, so that ties are frequent and sums exact.
std::vector<double> coarse_row(support::random_source& random, std::size_t n, double low, double high) {
  std::vector<double> row(n);
  for (double& value : row)
    value = std::round(random.real(low, high) * 4) / 4;
  return row;
}

} // namespace

TEST_CASE("positive chooses what is above zero, none included") {
  CHECK(choose(routing::positive{}, std::vector<double>{0.5, 0, -1, 1e-300}) == ids{0, 3});
  CHECK(choose(routing::positive{}, std::vector<double>{0, -1}).empty());
  CHECK(choose(routing::positive{}, std::vector<float>{0, NAN}) == ids{1});
}

TEST_CASE("the cumulative threshold keeps i while the sum before it is below the limit") {
  support::random_source random(1);
  for (int round = 0; round < 500; ++round) {
    auto row = coarse_row(random, 7, 0, 0.6);
    const double limit = 0.25 * static_cast<double>(random.size(1, 4));
    const std::size_t most = random.size(1, 8);
    ids expected;
    double sum = 0;
    for (const std::size_t e : ranking(row)) {
      sum += row[e];
      if ((sum - row[e] < limit || expected.empty()) && expected.size() < most)
        expected.push_back(e);
    }
    std::sort(expected.begin(), expected.end());
    CHECK(choose(routing::cumulative_threshold{limit, most}, row) == expected);
    if (most >= 7)
      CHECK(choose(routing::top_p{limit}, row) == expected); // sums are exact here, so they agree
  }
  CHECK(error_of([] { routing::cumulative_threshold{1.5}.validate(4); }) ==
        "hmoe: cumulative_threshold with limit = 1.5: it must be in (0, 1]");
  CHECK(error_of([] { routing::cumulative_threshold{0.5, 0}.validate(4); }) ==
        "hmoe: cumulative_threshold with at most 0 experts: it must allow at least 1");
}

namespace {
/// What the papers say: groups by their score, all others masked, the best k of what is left.
ids masked_top_k(const std::vector<double>& row, std::size_t groups, std::size_t kept, std::size_t k, bool best_two,
                 double mask) {
  const std::size_t size = row.size() / groups;
  std::vector<double> scores;
  for (std::size_t g = 0; g < groups; ++g) {
    std::vector<double> members(row.begin() + static_cast<std::ptrdiff_t>(g * size),
                                row.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(members.rbegin(), members.rend());
    scores.push_back(members[0] + (best_two ? members[1] : 0));
  }
  std::vector<double> masked(row.size(), mask);
  for (const std::size_t g : best(scores, kept))
    for (std::size_t e = g * size; e < (g + 1) * size; ++e)
      masked[e] = row[e];
  return best(masked, k);
}
} // namespace

TEST_CASE("group-limited top-k: four variants, over rows with ties and negative values") {
  using routing::group_mask, routing::group_score;
  support::random_source random(2);
  std::size_t masks_differ = 0, scores_differ = 0;
  for (int round = 0; round < 500; ++round) {
    const auto row = coarse_row(random, 12, -2, 1);
    const std::size_t kept = random.size(1, 4), k = random.size(1, kept * 3);
    const double none = -std::numeric_limits<double>::infinity();
    const auto best_zero = choose(routing::group_limited<group_score::best, group_mask::zero>{4, kept, k}, row),
               best_out = choose(routing::group_limited<group_score::best, group_mask::excluded>{4, kept, k}, row),
               two_zero = choose(routing::group_limited<group_score::best_two, group_mask::zero>{4, kept, k}, row),
               two_out = choose(routing::group_limited<>{4, kept, k}, row);
    CHECK(best_zero == masked_top_k(row, 4, kept, k, false, 0));
    CHECK(best_out == masked_top_k(row, 4, kept, k, false, none));
    CHECK(two_zero == masked_top_k(row, 4, kept, k, true, 0));
    CHECK(two_out == masked_top_k(row, 4, kept, k, true, none));
    masks_differ += two_zero != two_out;
    scores_differ += two_out != best_out;
  }
  CHECK(masks_differ > 50);
  CHECK(scores_differ > 50);
  static_assert(std::is_trivially_copyable_v<routing::group_limited<>>);
}

TEST_CASE("group-limited top-k with one group is top-k") {
  support::random_source random(3);
  for (int round = 0; round < 100; ++round) {
    const auto row = coarse_row(random, 6, -1, 1);
    CHECK(choose(routing::group_limited<>{1, 1, 3}, row) == choose(routing::top_k<>{3}, row));
  }
}

TEST_CASE("group-limited top-k refuses what cannot be, with the numbers") {
  using routing::group_limited, routing::group_score;
  CHECK(error_of([] { group_limited<>{3, 1, 1}.validate(8); }) ==
        "hmoe: group_limited with 3 groups for 8 experts: the groups must be equal");
  CHECK(error_of([] { group_limited<>{4, 5, 1}.validate(8); }) ==
        "hmoe: group_limited keeps 5 of 4 groups: it must be 1 to 4");
  CHECK(error_of([] { group_limited<>{4, 2, 5}.validate(8); }) ==
        "hmoe: group_limited with k = 5 of 4 experts in 2 groups: k must be 1 to 4");
  CHECK(error_of([] { group_limited<>{8, 2, 1}.validate(8); }) ==
        "hmoe: group_limited by the two best of groups of 1 expert: use group_score::best, or at most 4 groups");
  CHECK(error_of([] { group_limited<group_score::best>{8, 2, 1}.validate(8); }) == "no error");
}

TEST_CASE("two levels: the best groups by their sum, then the best experts of each") {
  support::random_source random(4);
  const std::vector<std::size_t> sizes{1, 4, 2, 3};
  for (int round = 0; round < 500; ++round) {
    const auto row = coarse_row(random, 10, 0, 1.5);
    const std::size_t groups = random.size(1, 4), each = random.size(1, 4);
    std::vector<double> sums;
    std::size_t begin = 0;
    std::vector<std::size_t> begins;
    for (const std::size_t size : sizes) {
      begins.push_back(begin);
      sums.push_back(std::accumulate(row.begin() + static_cast<std::ptrdiff_t>(begin),
                                     row.begin() + static_cast<std::ptrdiff_t>(begin + size), 0.0));
      begin += size;
    }
    ids expected;
    for (const std::size_t g : best(sums, groups)) {
      const std::vector<double> members(row.begin() + static_cast<std::ptrdiff_t>(begins[g]),
                                        row.begin() + static_cast<std::ptrdiff_t>(begins[g] + sizes[g]));
      for (const std::size_t i : best(members, std::min(each, sizes[g])))
        expected.push_back(begins[g] + i);
    }
    const routing::two_level select(sizes, groups, each);
    select.validate(10);
    const auto got = choose(select, row);
    CHECK(got == expected);
    CHECK(got.size() <= select.max_selected(10));
  }
  static_assert(std::is_trivially_copyable_v<routing::two_level>);
  CHECK(error_of([&] { routing::two_level(sizes, 5, 1); }) == "hmoe: two_level picks 5 of 4 groups: it must be 1 to 4");
  CHECK(error_of([&] { routing::two_level(sizes, 1, 5); }) ==
        "hmoe: two_level picks 5 experts of each group: it must be 1 to 4, the size of the largest group");
  CHECK(error_of([&] { routing::two_level(sizes, 1, 1).validate(9); }) ==
        "hmoe: two_level: the groups hold 10 experts, there are 9");
  CHECK(error_of([&] { routing::two_level(std::vector<std::size_t>{2, 0}, 1, 1); }) ==
        "hmoe: two_level: group 1 is empty");
}

TEST_CASE("cost-aware top-p buys the most probability per cost, within the budget") {
  support::random_source random(5);
  std::size_t skipped = 0;
  for (int round = 0; round < 1000; ++round) {
    const auto row = coarse_row(random, 7, 0, 1);
    std::vector<double> costs(7);
    for (double& cost : costs)
      cost = static_cast<double>(random.size(0, 4));
    const double p = 0.25 * static_cast<double>(random.size(1, 4));
    const double budget = *std::min_element(costs.begin(), costs.end()) + static_cast<double>(random.size(0, 8));
    ids order(7);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const bool free_a = costs[a] == 0, free_b = costs[b] == 0;
      if (free_a != free_b)
        return free_a;
      const double value_a = free_a ? 0 : row[a] / costs[a], value_b = free_b ? 0 : row[b] / costs[b];
      return value_a != value_b ? value_a > value_b : row[a] != row[b] ? row[a] > row[b] : a < b;
    });
    ids expected;
    double sum = 0, spent = 0;
    for (const std::size_t e : order) {
      if (sum >= p)
        break;
      if (spent + costs[e] > budget) {
        ++skipped;
        continue;
      }
      expected.push_back(e);
      sum += row[e];
      spent += costs[e];
    }
    std::sort(expected.begin(), expected.end());
    const routing::cost_aware_top_p select(costs, p, budget);
    select.validate(7);
    const auto got = choose(select, row);
    CHECK(got == expected);
    CHECK(got.size() >= 1);
    CHECK(got.size() <= select.max_selected(7));
    CHECK(choose(select.view(), row) == expected);
  }
  CHECK(skipped > 100);
  static_assert(std::is_trivially_copyable_v<routing::cost_aware_top_p_view>);
}

TEST_CASE("cost-aware top-p with equal costs and no bound is top-p; a narrow expert goes first at equal probability") {
  support::random_source random(6);
  for (int round = 0; round < 200; ++round) {
    const auto row = coarse_row(random, 6, 0, 1);
    CHECK(choose(routing::cost_aware_top_p(std::vector<double>(6, 3.0), 0.75), row) ==
          choose(routing::top_p{0.75}, row));
  }
  CHECK(choose(routing::cost_aware_top_p({4, 1}, 0.3), std::vector<double>{0.5, 0.5}) == ids{1});
  CHECK(error_of([] { routing::cost_aware_top_p({4, 2}, 0.3, 1.5); }) ==
        "hmoe: cost_aware_top_p with a budget of 1.5: the cheapest expert costs 2");
  CHECK(error_of([] { routing::cost_aware_top_p({4, 2}, 0); }) ==
        "hmoe: cost_aware_top_p with p = 0: p must be in (0, 1]");
  CHECK(error_of([] { routing::cost_aware_top_p({4, -2}, 0.5); }) ==
        "hmoe: cost_aware_top_p: expert 1 costs -2: it must be finite and not below 0");
  CHECK(error_of([] { routing::cost_aware_top_p({4, 2}, 0.5).validate(3); }) ==
        "hmoe: cost_aware_top_p has 2 costs for 3 experts");
}

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

namespace {
struct best_and_close_ones { // the example of docs/routing.md
  template <class T>
  std::size_t operator()(hmoe::vector_view<const T> p, hmoe::vector_view<hmoe::index_t> chosen) const {
    const T best = p[hmoe::routing::next_preferred(p, hmoe::no_index)];
    std::size_t count = 0;
    for (hmoe::index_t i = 0; i < p.size(); ++i)
      if (p[i] >= best / 2)
        chosen[count++] = i;
    return count;
  }
};
} // namespace

TEST_CASE("the selection that the documentation writes keeps the laws") {
  CHECK(hmoe::testing::check_selection<double>(best_and_close_ones{}, 6, {.may_choose_none = false}).text() == "");
  const hmoe::routing::router<hmoe::routing::linear<float>, best_and_close_ones> router{768, 8};
  CHECK(router.max_selected() == 8);
}
