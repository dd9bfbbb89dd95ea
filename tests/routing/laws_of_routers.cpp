// SPDX-License-Identifier: MIT
// The laws of routers with every selection, with shared experts, and on those that have names.
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/batch_selections/balanced.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/replay.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/jointly_weighted.hpp>
#include <hmoe/routing/shared/no_shared.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/scaled_per_expert.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/testing/router_laws.hpp>

#include <doctest/doctest.h>

#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using routing::linear;

namespace {
constexpr std::size_t d = 5, experts = 6;

template <class Router> void check(const Router& router, const hmoe::testing::router_options& options = {}) {
  CHECK(hmoe::testing::check_router(router, options).text() == "");
}
template <class Selection, class Weighting = routing::renormalized>
void check_selection(Selection select, const hmoe::testing::router_options& options = {}, Weighting weight = {}) {
  check(routing::router(linear<double>(d, experts), std::move(select), weight), options);
}
constexpr hmoe::testing::router_options tokens_compete{.tokens = 8, .token_by_token = false};
} // namespace

TEST_CASE("selections for one token") {
  check_selection(routing::cumulative_threshold{0.7});
  check_selection(routing::group_limited<>{3, 2, 3});
  check_selection(routing::two_level(std::vector<std::size_t>{1, 3, 2}, 2, 1));
  check_selection(routing::cost_aware_top_p({1, 2, 3, 4, 5, 6}, 0.6, 9));
  check_selection(routing::biased<double, routing::top_k<>>(experts, {2}), {}, routing::scaled<>{2.5});
  check_selection(routing::top_k<>{3}, {}, routing::scaled_per_expert<double>(experts)); // scratch and parameters
}

TEST_CASE("selections over the batch") {
  check_selection(routing::expert_choice{2}, tokens_compete, routing::raw{});
  check_selection(routing::sinkhorn{2}, tokens_compete);
  check_selection(routing::balanced{}, tokens_compete, routing::sigmoid_of_logit{});
  check_selection(routing::hash_table({0, 2, 1, 0, 4, 3}, 2), {.vocabulary = 3});
  check(routing::router(routing::no_score<double>(d, experts), routing::random_hash{2}, routing::equal_weights{}),
        {.vocabulary = 9});
}

TEST_CASE("shared experts") {
  const auto with = [](auto shared) {
    check(routing::router(linear<double>(d, experts), routing::top_k<2>{}, routing::renormalized{}, shared));
  };
  with(routing::no_shared{});
  with(routing::always_on{2});
  with(routing::sigmoid_gated<double>(d, 2));
  with(routing::jointly_weighted<double>(d, 2));
}

TEST_CASE("routers by name") {
  check(routing::top_k_router<double>(d, experts, 2));
  check(routing::top_p_router<double, routing::raw>(d, experts, 0.6));
  check(routing::threshold_router<double, routing::raw>(d, experts, 0.2));
  check(routing::any_router<double, hmoe::context<hmoe::backends::reference>>(
      routing::top_k_router<double, routing::raw>(d, experts, 2)));
}

TEST_CASE("a replay routes its own batch only") {
  hmoe::assignment<double> recorded;
  recorded.resize_tokens(4);
  for (std::size_t t = 0; t < 4; ++t)
    recorded.offsets()[t + 1] = static_cast<hmoe::index_t>(2 * t + 2);
  recorded.resize_entries();
  for (std::size_t a = 0; a < 8; ++a) {
    recorded.experts()[a] = static_cast<hmoe::index_t>(a % 2 + a / 2);
    recorded.weights()[a] = 0.5;
  }
  check(routing::replay<double>(d, experts, recorded), {.tokens = 4, .any_batch_size = false});
}
