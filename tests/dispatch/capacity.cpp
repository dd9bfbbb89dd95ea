// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/capacity.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace capacity = hmoe::capacity;
using sizes = std::vector<std::size_t>;

namespace {

const double infinity = std::numeric_limits<double>::infinity();

template <class Capacity>
sizes limits_of(const Capacity& policy, std::size_t tokens, std::size_t entries, const sizes& widths, sizes rows = {}) {
  rows.resize(widths.size());
  sizes limits(widths.size(), 777);
  policy.limits(capacity::demand{tokens, entries, widths, rows}, limits);
  return limits;
}

double flops_of(const sizes& limits, const sizes& widths) {
  double sum = 0;
  for (std::size_t e = 0; e < widths.size(); ++e)
    sum += static_cast<double>(limits[e] * widths[e]);
  return sum;
}

} // namespace

static_assert(hmoe::capacity_policy<capacity::no_capacity>);
static_assert(hmoe::capacity_policy<capacity::by_factor>);
static_assert(hmoe::capacity_policy<capacity::by_width>);
static_assert(hmoe::capacity_policy<capacity::fixed>);
static_assert(hmoe::capacity_policy<capacity::busiest>);
static_assert(hmoe::capacity_policy<capacity::moe_plus_plus>);
static_assert(!hmoe::capacity_policy<double>);

TEST_CASE("by_factor is factor times the mean load") {
  const sizes four(4, 10);
  CHECK(limits_of(capacity::by_factor{1.25}, 16, 16, four) == sizes(4, 5));
  CHECK(limits_of(capacity::by_factor{1.25}, 16, 32, four) == sizes(4, 10)); // two choices per token
  CHECK(limits_of(capacity::by_factor{1.0}, 10, 10, four) == sizes(4, 3));   // 2.5, up
  CHECK(limits_of(capacity::by_factor{1.0, 1, capacity::rounding::down}, 10, 10, four) == sizes(4, 2));
  CHECK(limits_of(capacity::by_factor{1.1}, 100, 100, sizes(10, 1)) == sizes(10, 11)); // 1.1 is a little above 11/10
  CHECK(limits_of(capacity::by_factor{0.29, 0, capacity::rounding::down}, 100, 100, sizes(1, 1)) == sizes{29});
}

TEST_CASE("by_factor says what Switch, MegaBlocks and DeepSpeed compute") {
  support::random_source random(21);
  for (int i = 0; i < 200; ++i) {
    const std::size_t tokens = random.size(1, 5000), k = random.size(1, 4), n = random.size(4, 64);
    const double factor = random.real(0.3, 3);
    const std::size_t minimum = random.size(0, 8);
    const double load = static_cast<double>(k * tokens) / static_cast<double>(n);
    const auto megablocks = static_cast<std::size_t>(factor * load);
    const auto deepspeed = std::max(static_cast<std::size_t>(std::ceil(factor * load)), minimum);
    const sizes widths(n, 1);
    CHECK(limits_of(capacity::by_factor{factor, 0, capacity::rounding::down}, tokens, k * tokens, widths)[n - 1] ==
          std::min(megablocks, tokens));
    CHECK(limits_of(capacity::by_factor{factor, minimum}, tokens, k * tokens, widths)[0] ==
          std::min(deepspeed, tokens));
  }
}

TEST_CASE("limits stay between the minimum and the number of tokens") {
  const sizes widths{1, 2, 3};
  CHECK(limits_of(capacity::by_factor{1e-9, 2}, 9, 9, widths) == sizes{2, 2, 2});
  CHECK(limits_of(capacity::by_factor{1e-9, 20}, 9, 9, widths) == sizes{9, 9, 9});
  CHECK(limits_of(capacity::by_factor{1e300}, 9, 9, widths) == sizes{9, 9, 9});
  CHECK(limits_of(capacity::by_factor{infinity}, 9, 9, widths) == sizes{9, 9, 9});
  CHECK(limits_of(capacity::by_factor{infinity}, 9, 0, widths) == sizes{9, 9, 9});
  CHECK(limits_of(capacity::by_factor{1}, 0, 0, widths) == sizes{0, 0, 0});
  CHECK(limits_of(capacity::by_width{infinity}, 9, 9, widths) == sizes{9, 9, 9});
  CHECK(limits_of(capacity::by_width{1e-9, 2}, 9, 9, widths) == sizes{2, 2, 2});
  CHECK(limits_of(capacity::moe_plus_plus{1e-9, 0.5, 3}, 9, 9, widths) == sizes{3, 3, 3});
  CHECK(limits_of(capacity::fixed{4}, 9, 9, widths) == sizes{4, 4, 4});
  CHECK(limits_of(capacity::fixed{40}, 9, 9, widths) == sizes{9, 9, 9});
  CHECK(limits_of(capacity::no_capacity{}, 9, 9, widths) == sizes(3, capacity::unlimited));
}

TEST_CASE("by_width is in proportion to the widths and keeps the FLOPs, or the rows, of by_factor") {
  const sizes widths{9, 11, 13, 15, 17, 19, 21, 23};
  const std::size_t tokens = 1U << 26U; // large, so that rounding to whole rows does not show
  for (const double factor : {0.5, 1.0, 1.25}) {
    const auto uniform = limits_of(capacity::by_factor{factor}, tokens, 2 * tokens, widths);
    capacity::by_width policy{factor};
    const auto flops = limits_of(policy, tokens, 2 * tokens, widths);
    CHECK(flops_of(flops, widths) == doctest::Approx(flops_of(uniform, widths)).epsilon(1e-6));
    policy.total = capacity::conserve::rows;
    const auto rows = limits_of(policy, tokens, 2 * tokens, widths);
    CHECK(static_cast<double>(std::accumulate(rows.begin(), rows.end(), std::size_t{0})) ==
          doctest::Approx(8.0 * static_cast<double>(uniform[0])).epsilon(1e-6));
    for (const auto& limits : {flops, rows})
      for (std::size_t e = 1; e < widths.size(); ++e)
        CHECK(static_cast<double>(limits[e]) / static_cast<double>(limits[0]) ==
              doctest::Approx(static_cast<double>(widths[e]) / 9).epsilon(1e-5));
  }
  // By hand: 1.0 · 12/3 · h · 6/14 for the FLOPs, 1.0 · 12/3 · h · 3/6 for the rows.
  CHECK(limits_of(capacity::by_width{1}, 12, 12, {1, 2, 3}) == sizes{2, 4, 6});
  CHECK(limits_of(capacity::by_width{1, 1, capacity::rounding::down}, 12, 12, {1, 2, 3}) == sizes{1, 3, 5});
  CHECK(limits_of(capacity::by_width{1, 1, capacity::rounding::down, capacity::conserve::rows}, 12, 12, {1, 2, 3}) ==
        sizes{2, 4, 6});
}

TEST_CASE("by_width is by_factor for equal widths and leaves zero-cost experts alone") {
  for (const auto total : {capacity::conserve::flops, capacity::conserve::rows}) {
    CHECK(limits_of(capacity::by_width{1.25, 1, capacity::rounding::up, total}, 64, 128, sizes(8, 37)) ==
          limits_of(capacity::by_factor{1.25}, 64, 128, sizes(8, 37)));
    CHECK(limits_of(capacity::by_width{1.5, 1, capacity::rounding::up, total}, 20, 40, {5, 0, 5, 0}) ==
          sizes{15, capacity::unlimited, 15, capacity::unlimited});
  }
}

TEST_CASE("busiest is the largest load") {
  CHECK(limits_of(capacity::busiest{}, 9, 12, {1, 1, 1}, {3, 8, 1}) == sizes{8, 8, 8});
  CHECK(limits_of(capacity::busiest{}, 0, 0, {1, 1}, {0, 0}) == sizes{0, 0});
}

TEST_CASE("MoE++ gives zero-cost experts 1/tau times the room") {
  // gamma tau n / (tau N_F + N_Z) = 1.1 · 0.75 · 800 / (0.75 · 4 + 4) = 94.3, and 1.1 · 800 / 7 = 125.7
  CHECK(limits_of(capacity::moe_plus_plus{}, 400, 800, {8, 8, 8, 8, 0, 0, 0, 0}) ==
        sizes{95, 95, 95, 95, 126, 126, 126, 126});
  CHECK(limits_of(capacity::moe_plus_plus{1.25, 0.3}, 64, 128, sizes(8, 3)) ==
        limits_of(capacity::by_factor{1.25}, 64, 128, sizes(8, 3)));
}

TEST_CASE("capacities that make no sense are refused with their numbers") {
  CHECK_THROWS_WITH_AS(capacity::by_factor{0}.validate(), "hmoe: a capacity factor of 0: it must be above 0",
                       hmoe::error);
  CHECK_THROWS_AS(capacity::by_factor{std::nan("")}.validate(), hmoe::error);
  CHECK_THROWS_WITH_AS(capacity::by_width{-2}.validate(), "hmoe: a capacity factor of -2: it must be above 0",
                       hmoe::error);
  CHECK_THROWS_WITH_AS(capacity::fixed{0}.validate(), "hmoe: capacity::fixed with 0 rows: an expert needs at least 1",
                       hmoe::error);
  CHECK_THROWS_WITH_AS((capacity::moe_plus_plus{1.1, 0}.validate()),
                       "hmoe: capacity::moe_plus_plus with tau = 0: it must be finite and above 0", hmoe::error);
  CHECK_THROWS_WITH_AS(limits_of(capacity::by_width{}, 4, 4, {0, 0}),
                       "hmoe: capacity::by_width: all 2 routed experts have width 0", hmoe::error);
  CHECK_NOTHROW(capacity::by_factor{infinity}.validate());
}

TEST_CASE("per_group: as many limits of the inner capacity as there are groups, and a size that must be given") {
  const std::vector<std::size_t> widths(4, 1), rows(4, 25);
  std::vector<std::size_t> limits(4);
  const hmoe::capacity::per_group<> policy{.tokens = 30, .inner = {1.0}};
  policy.limits(hmoe::capacity::demand{100, 200, hmoe::vector_view<const std::size_t>(widths),
                                       hmoe::vector_view<const std::size_t>(rows)},
                hmoe::vector_view<std::size_t>(limits));
  CHECK(limits == std::vector<std::size_t>(4, 60)); // 4 groups of 15 = 1.0 * 60 / 4 rows
  CHECK_THROWS_WITH_AS(hmoe::capacity::per_group<>{}.validate(),
                       "hmoe: capacity::per_group without tokens: give the number of tokens of a group, as in {.tokens "
                       "= 1024}",
                       hmoe::error);
  CHECK_THROWS_AS((hmoe::capacity::per_group<>{.tokens = 8, .inner = {-1.0}}.validate()), hmoe::error);
}
