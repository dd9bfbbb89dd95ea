// SPDX-License-Identifier: MIT
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/scores/rms_normalized.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "routing/scores/logits.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cstddef>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;
using routing::router;
using routing::top_k;

TEST_CASE("every score has the gradients of the whole layer right") {
  SUBCASE("linear with bias") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::softmax, true>, top_k<>>(d, experts, 2));
  }
  SUBCASE("sigmoid") { CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sigmoid>, top_k<>>(d, experts, 2)); }
  SUBCASE("square root of softplus") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sqrt_softplus>, top_k<>>(d, experts, 2));
  }
  SUBCASE("relu") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::relu>, routing::positive, routing::raw>(d, experts));
  }
  SUBCASE("unscored") {
    CHECK_ROUTER_GRADIENTS(
        router<linear<double, routing::unscored, true>, top_k<>, routing::softmax_over_selected>(d, experts, 3));
  }
  SUBCASE("cosine") { CHECK_ROUTER_GRADIENTS(router<routing::cosine<double>, top_k<>>(d, experts, 2)); }
  SUBCASE("cosine with sigmoid") {
    CHECK_ROUTER_GRADIENTS(router<routing::cosine<double, routing::sigmoid>, top_k<>, routing::raw>(d, experts, 2));
  }
  SUBCASE("rms_normalized") {
    CHECK_ROUTER_GRADIENTS(router<routing::rms_normalized<linear<double>>, top_k<>>({d, experts, 0.2}, 2));
  }
  SUBCASE("noisy") {
    CHECK_ROUTER_GRADIENTS(router<routing::noisy_linear<double>, top_k<>>(d, experts, 2), with_noise());
  }
  SUBCASE("noisy without noise") {
    CHECK_ROUTER_GRADIENTS(router<routing::noisy_linear<double>, top_k<>>(d, experts, 2));
  }
  SUBCASE("gumbel") {
    CHECK_ROUTER_GRADIENTS(router<routing::gumbel<linear<double>>, top_k<>>(d, experts, 2), with_noise());
  }
  SUBCASE("jittered") {
    using score = routing::jittered<linear<double>>;
    CHECK_ROUTER_GRADIENTS(router<score, top_k<>>(score(d, experts, 0.4), 2), with_noise());
  }
  SUBCASE("all wrappers around cosine") {
    using score = routing::gumbel<routing::noisy<routing::jittered<routing::cosine<double>>>>;
    CHECK_ROUTER_GRADIENTS(router<score, top_k<>>(d, experts, 2), with_noise());
  }
  SUBCASE("residual around noisy") {
    using score = routing::gate_residual<routing::noisy_linear<double>>;
    support::random_source random(13);
    hmoe::router_trace<double> previous;
    previous.resize(7, experts, 0, true);
    support::fill(random, previous.logits());
    auto inputs = with_noise();
    inputs.previous = &previous;
    CHECK_ROUTER_GRADIENTS(router<score, top_k<>>(d, experts, 2), inputs);
  }
}
