// SPDX-License-Identifier: MIT
// The laws on every selection.
#include <hmoe/routing/batch_selections/balanced.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/testing/batch_selection_laws.hpp>
#include <hmoe/testing/selection_laws.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;

namespace {
template <class Selection>
void check(const Selection& select, std::size_t experts, const hmoe::testing::selection_options& options = {}) {
  CHECK(hmoe::testing::check_selection<float>(select, experts, options).text() == "");
  CHECK(hmoe::testing::check_selection<double>(select, experts, options).text() == "");
}
template <class Selection>
void check_batch(const Selection& select, std::size_t experts,
                 const hmoe::testing::batch_selection_options& options = {}) {
  CHECK(hmoe::testing::check_batch_selection<float>(select, experts, options).text() == "");
  CHECK(hmoe::testing::check_batch_selection<double>(select, experts, options).text() == "");
}
/// Experts of one group, or of low cost, or with a high bias, come before others that are more probable.
constexpr hmoe::testing::selection_options by_more_than_probability{
    .may_choose_none = false, .prefers_probable = false, .ties_to_lower_id = false, .treats_experts_alike = false};
} // namespace

TEST_CASE("selections by probability alone") {
  for (const std::size_t experts : {1U, 2U, 9U}) {
    check(routing::top_k<1>{}, experts, {.may_choose_none = false});
    check(routing::top_k<>{experts}, experts, {.may_choose_none = false});
    check(routing::top_p{0.6}, experts, {.may_choose_none = false});
    check(routing::top_p{1}, experts, {.may_choose_none = false});
    check(routing::threshold{0.2}, experts);
    check(routing::positive{}, experts);
    check(routing::cumulative_threshold{0.6}, experts, {.may_choose_none = false});
    check(routing::cumulative_threshold{0.9, 2}, experts, {.may_choose_none = false});
  }
}

TEST_CASE("selections by group, cost or bias, and where they are the plain one") {
  using best = routing::group_limited<routing::group_score::best, routing::group_mask::zero>;
  check(routing::group_limited<>{4, 2, 3}, 8, by_more_than_probability);
  check(best{4, 2, 3}, 8, by_more_than_probability);
  check(routing::group_limited<>{1, 1, 3}, 8, {.may_choose_none = false});
  check(routing::two_level(std::vector<std::size_t>{1, 4, 3}, 2, 2), 8, by_more_than_probability);
  check(routing::two_level(std::vector<std::size_t>{8}, 1, 3), 8, {.may_choose_none = false});
  check(routing::cost_aware_top_p({1, 2, 3, 4, 0}, 0.7, 5), 5, by_more_than_probability);
  check(routing::cost_aware_top_p(std::vector<double>(6, 2.0), 0.7), 6, {.may_choose_none = false});
  routing::biased<float, routing::top_k<>> single(6, {2});
  routing::biased<double, routing::top_p> wide(6, {0.5});
  CHECK(hmoe::testing::check_selection<float>(single, 6, {.may_choose_none = false}).text() == "");
  CHECK(hmoe::testing::check_selection<double>(wide, 6, {.may_choose_none = false}).text() == "");
  for (std::size_t e = 0; e < 6; ++e) {
    single.bias()[e] = static_cast<float>(e % 4) / 8;
    wide.bias()[e] = static_cast<double>(e % 3) / 8;
  }
  CHECK(hmoe::testing::check_selection<float>(single, 6, by_more_than_probability).text() == "");
  CHECK(hmoe::testing::check_selection<double>(wide, 6, by_more_than_probability).text() == "");
}

TEST_CASE("selections over a batch") {
  check_batch(routing::expert_choice{2}, 5, {.load_difference = 0});
  check_batch(routing::expert_choice{0.5}, 4, {.load_difference = 0});
  check_batch(routing::sinkhorn{2}, 5, {.may_choose_none = false});
  // Which experts get one token more depends on their ids; with 1 expert nothing does.
  check_batch(routing::balanced{}, 5, {.may_choose_none = false, .treats_experts_alike = false, .load_difference = 1});
  check_batch(routing::balanced{}, 1, {.may_choose_none = false, .load_difference = 0});
  check_batch(routing::random_hash{2, hmoe::seed{3}}, 5,
              {.may_choose_none = false, .treats_experts_alike = false, .vocabulary = 11});
  check_batch(routing::hash_table({0, 2, 1, 0, 4, 3}, 2), 5,
              {.may_choose_none = false, .treats_experts_alike = false, .vocabulary = 3});
}
