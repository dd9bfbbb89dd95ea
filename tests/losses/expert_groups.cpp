// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/losses/expert_groups.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <vector>

using hmoe::index_t;
using sizes = std::vector<std::size_t>;
namespace detail = hmoe::losses::detail;

namespace {
/// The group of each expert; how many groups there are must come out, too.
std::vector<index_t> groups_of(const sizes& widths, const sizes& group_sizes) {
  std::vector<index_t> group(widths.size());
  const std::size_t groups = detail::assign_groups(hmoe::vector_view<const std::size_t>(widths), group_sizes,
                                                   hmoe::vector_view<index_t>(group));
  CHECK(groups == (group.empty() ? 0 : group.back() + std::size_t{1}));
  return group;
}
} // namespace

TEST_CASE("groups are runs of equal width, or of given sizes") {
  CHECK(groups_of({8, 8, 4, 8}, {}) == std::vector<index_t>{0, 0, 1, 2});
  CHECK(groups_of({8, 8, 4, 8}, {1, 3}) == std::vector<index_t>{0, 1, 1, 1});
  CHECK(groups_of({}, {}).empty());
}

TEST_CASE("sizes that do not add up are refused") {
  CHECK_THROWS_WITH_AS(groups_of({1, 1, 1}, {2}), "hmoe: the 1 expert groups have 2 experts in all, the layer 3",
                       hmoe::error);
  CHECK_THROWS_AS(groups_of({1, 1, 1}, {2, 2}), hmoe::error);
  CHECK_THROWS_AS(groups_of({1, 1, 1}, {0, 3}), hmoe::error);
}

TEST_CASE("a token counts once in each group that it has an expert in") {
  support::routing_batch batch(3, 4);
  batch.set([](std::size_t, std::size_t) { return 0.0; },
            [](std::size_t t, std::size_t e) { return t == 0 ? e < 3 : t == 1 && e == 3; }); // 3, 1 and no experts
  const hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
  const std::vector<index_t> group{0, 0, 1, 2};
  std::vector<double> counts(3);
  CHECK(detail::count_groups(routed, hmoe::vector_view<const index_t>(group), hmoe::vector_view<double>(counts)) == 3);
  CHECK(counts == std::vector<double>{1, 1, 1});
}
