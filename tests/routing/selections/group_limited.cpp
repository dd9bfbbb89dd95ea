// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/top_k.hpp>

#include "routing/selections/coarse_rows.hpp"
#include "routing/selections/masked_top_k.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace routing = hmoe::routing;
using namespace coarse;
using support::error_of;

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
  for (const group_limited<> incomplete :
       {group_limited<>{.groups = 4, .kept = 2}, {.groups = 4, .k = 2}, {.k = 2}, {}})
    CHECK(error_of([&] { incomplete.validate(8); }).find(": give all three, as in {.groups = 8, .kept = 4, .k = 8}") !=
          std::string::npos);
  CHECK(error_of([] { group_limited<>{.groups = 4, .kept = 2}.validate(8); }) ==
        "hmoe: group_limited with groups = 4, kept = 2 and k = 0: give all three, as in {.groups = 8, .kept = 4, .k = "
        "8}");
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
