// SPDX-License-Identifier: MIT
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/normalized.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/scaled_per_expert.hpp>
#include <hmoe/routing/weightings/score_of_logit.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cstddef>

namespace routing = hmoe::routing;
using routing::linear;
using routing::router;
using routing::top_k;

TEST_CASE("every weighting has the gradients of the whole layer right") {
  constexpr std::size_t d = 5, n = 6;
  SUBCASE("epsilon added") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sigmoid>, top_k<>>(d, n, 3, routing::renormalized{0.3}));
  }
  SUBCASE("epsilon clamped") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sigmoid>, top_k<>>(
        d, n, 3, routing::renormalized{1.8, routing::epsilon_use::clamped}));
  }
  SUBCASE("scaled") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::scaled<>>(d, n, 3, routing::scaled<>{2.5}));
  }
  SUBCASE("scaled softmax over the selected") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::scaled<routing::softmax_over_selected>>(
        d, n, 3, routing::scaled<routing::softmax_over_selected>{2.5}));
  }
  SUBCASE("scales that are learned, in and around others") {
    using scales = routing::scaled_per_expert<double, routing::normalized<routing::score_of_logit<routing::sigmoid>>>;
    using weighting = routing::scaled<routing::normalized<scales>>;
    const scales ones(n, {.order = 2, .epsilon = 0.1});
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, weighting>(
        d, n, 3, weighting{.factor = 2.5, .inner = {.order = 3, .epsilon = 0.3, .inner = ones}}));
  }
  SUBCASE("sigmoid of the logit") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::sigmoid_of_logit>(d, n, 3));
  }
  SUBCASE("on the input side") {
    using weighting = routing::on_input_side<routing::sigmoid_of_logit>;
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::unscored>, top_k<>, weighting>(d, n, 3));
  }
  SUBCASE("scaled on the input side") {
    using weighting = routing::on_input_side<routing::scaled<>>;
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, weighting>(d, n, 3, weighting{{2.5, {}}}));
  }
  SUBCASE("without the last") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::renormalized_without_last>(d, n, 3));
  }
  SUBCASE("equal") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::equal_weights>(d, n, 3)); // through the sinks only
  }
}
