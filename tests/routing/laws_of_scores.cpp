// SPDX-License-Identifier: MIT
// The laws of routers on every score and score function.
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/scores/own_input.hpp>
#include <hmoe/routing/scores/rms_normalized.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>
#include <hmoe/testing/router_laws.hpp>

#include <doctest/doctest.h>

#include <utility>

namespace routing = hmoe::routing;
using routing::linear;

namespace {
constexpr std::size_t d = 5, experts = 6;
const hmoe::noise_source noise{hmoe::seed{17}, 3};

/// A router around the score. By logits, since not all score functions make probabilities.
template <class Score, class Selection = routing::top_k<2>, class Weighting = routing::raw>
void check(Score score, const hmoe::testing::router_options& options = {}, Selection select = {},
           Weighting weight = {}) {
  CHECK(hmoe::testing::check_router(routing::router(std::move(score), select, weight), options).text() == "");
}
/// With noise and without.
template <class Score> void check_noisy(const Score& score, hmoe::testing::router_options options = {}) {
  check(score, options);
  options.noise = noise;
  check(score, options);
}
} // namespace

TEST_CASE("linear, with every score function") {
  check(linear<double>(d, experts));
  check(linear<float>(d, experts));
  check(linear<double, routing::sigmoid>(d, experts));
  check(linear<double, routing::sqrt_softplus>(d, experts));
  check(linear<double, routing::relu>(d, experts), {}, routing::positive{});
  check(linear<double, routing::unscored>(d, experts), {}, routing::top_k<2>{}, routing::softmax_over_selected{});
  check(linear<double, routing::softmax, true>(d, experts));
}

TEST_CASE("cosine, with every score function") {
  check(routing::cosine<double>(d, experts));
  check(routing::cosine<float>(d, experts, {.dimension = 4}));
  check(routing::cosine<double, routing::sigmoid>(d, experts));
  check(routing::cosine<double, routing::sqrt_softplus>(d, experts));
  check(routing::cosine<double, routing::relu>(d, experts), {}, routing::positive{});
  check(routing::cosine<double, routing::unscored>(d, experts), {}, routing::top_k<2>{},
        routing::softmax_over_selected{});
}

TEST_CASE("scores around others") {
  check(routing::own_input<routing::rms_normalized<linear<double>>>(d, experts, 1e-3));
  check(routing::rms_normalized<routing::cosine<float>>(d, experts, 1e-6));
  check_noisy(routing::noisy<linear<double>>(d, experts, 0.1));
  check_noisy(routing::noisy_linear<float>(d, experts));
  check_noisy(routing::gumbel<linear<double>>(d, experts, 0.5));
  check_noisy(routing::jittered<linear<double>>(d, experts, 0.3));
  check_noisy(routing::gumbel<routing::noisy<routing::jittered<routing::cosine<double>>>>(d, experts));
  const routing::gate_residual<linear<double>> wider(linear<double>(d, experts), 9);
  check(wider, {.previous_experts = 9});
  check(wider); // the first layer
  check_noisy(routing::gate_residual<routing::noisy_linear<double, routing::sigmoid>>(d, experts),
              {.previous_experts = experts});
}

TEST_CASE("scores of groups and experts") {
  check(routing::grouped(linear<double>(d, experts), {1, 3, 2}));
  check(routing::grouped(linear<float>(d, experts), {experts}));
  check_noisy(routing::grouped(routing::noisy_linear<double>(d, experts), {2, 4}));
}

TEST_CASE("no score: no gradient") { check(routing::no_score<double>(d, experts)); }
