// SPDX-License-Identifier: MIT
// The laws on every weighting.
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/normalized.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/scaled_per_expert.hpp>
#include <hmoe/routing/weightings/score_of_logit.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>
#include <hmoe/testing/weighting_laws.hpp>

#include <doctest/doctest.h>

namespace routing = hmoe::routing;

namespace {
template <class Weighting> void check(const Weighting& weight, const hmoe::testing::weighting_options& options = {}) {
  for (const std::size_t experts : {2U, 6U}) {
    CHECK(hmoe::testing::check_weighting<float>(weight, experts, options).text() == "");
    CHECK(hmoe::testing::check_weighting<double>(weight, experts, options).text() == "");
  }
}
} // namespace

TEST_CASE("every weighting keeps the laws") {
  using routing::epsilon_use;
  check(routing::raw{});
  check(routing::renormalized{}, {.sums_to_one = true});
  check(routing::renormalized{0.5});
  check(routing::renormalized{0.4, epsilon_use::clamped}); // rows on both sides of the bound
  check(routing::softmax_over_selected{}, {.sums_to_one = true});
  check(routing::sigmoid_of_logit{});
  check(routing::equal_weights{}, {.sums_to_one = true});
  check(routing::renormalized_without_last{});
  check(routing::renormalized_without_last{0.4});
}

TEST_CASE("and so does each around another") {
  check(routing::scaled<>{2.5, {0.3}});
  check(routing::scaled<routing::raw>{16});
  check(routing::scaled<routing::softmax_over_selected>{0.3});
  check(routing::scaled<routing::sigmoid_of_logit>{-3}, {.non_negative = false});
  check(routing::on_input_side<routing::raw>{});
  check(routing::normalized<>{.order = 3, .epsilon = 0.2});
  check(routing::normalized<>{.order = 2, .epsilon = 0.4, .use = routing::epsilon_use::clamped}); // on both sides
  check(routing::normalized<routing::score_of_logit<routing::sqrt_softplus>>{.order = 1}, {.sums_to_one = true});
  check(routing::scaled<routing::normalized<routing::score_of_logit<routing::sigmoid>>>{-2}, {.non_negative = false});
  check(routing::on_input_side<routing::sigmoid_of_logit>{});
}

TEST_CASE("a weighting with learned scales") {
  routing::scaled_per_expert<double, routing::normalized<>> weight(6, {.order = 2});
  for (std::size_t e = 0; e < 6; ++e)
    weight.scale()[e] = 0.3 * static_cast<double>(e) - 0.6; // expert 2 has scale 0
  CHECK(hmoe::testing::check_weighting<double>(weight, 6, {.non_negative = false}).text() == "");
}
