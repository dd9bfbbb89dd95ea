// SPDX-License-Identifier: MIT
#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <string>

namespace losses = hmoe::losses;

TEST_CASE_TEMPLATE("a trace made for inference is refused before anything is written", Loss, losses::load_balance,
                   losses::parameter_penalty, losses::router_entropy, losses::z) {
  support::routing_batch batch(3, 4, false);
  std::string text;
  try {
    batch.evaluate(Loss{});
  } catch (const hmoe::error& e) {
    text = e.what();
  }
  CHECK(text == "hmoe: an auxiliary loss needs a trace with gradient sinks for 3 tokens, this one has 0: run forward "
                "with a tape");
}

TEST_CASE_TEMPLATE("no tokens are worth zero, calling twice adds twice", Loss, losses::load_balance,
                   losses::parameter_penalty, losses::router_entropy, losses::z) {
  support::routing_batch nothing(0, 4);
  CHECK(nothing.evaluate(Loss{}) == 0);
  support::random_source random(111);
  support::routing_batch batch(5, 4);
  batch.randomize(random);
  const double once = batch.evaluate(Loss{});
  const double on_p = batch.trace.d_probabilities()(2, 1), on_z = batch.trace.d_logits()(2, 1);
  CHECK(batch.evaluate(Loss{}) == once);
  CHECK(batch.trace.d_probabilities()(2, 1) == doctest::Approx(2 * on_p));
  CHECK(batch.trace.d_logits()(2, 1) == doctest::Approx(2 * on_z));
}

TEST_CASE("the rate of an expert is the share of tokens that selected it") {
  support::routing_batch batch(4, 3);
  batch.set([](std::size_t, std::size_t) { return 0.0; },
            [](std::size_t t, std::size_t e) { return e == 0 || t == 2; });
  const hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
  const auto rate = [&](std::size_t e) {
    return losses::detail::choice_rate(static_cast<double>(routed.trace.tokens_per_expert()[e]), 4);
  };
  CHECK(rate(0) == 1);
  CHECK(rate(1) == 0.25);
}

TEST_CASE("a mean probability weighs with its factor, and its slope is the same for all tokens") {
  support::routing_batch batch(2, 2);
  batch.trace.probabilities()(0, 0) = 0.25;
  batch.trace.probabilities()(1, 0) = 0.75;
  batch.trace.probabilities()(0, 1) = 0.5;
  batch.trace.probabilities()(1, 1) = 1;
  hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
  const auto factor = [](std::size_t e) { return e == 0 ? 2.0 : 8.0; };
  CHECK(losses::detail::mean_probability_loss(routed, 0.5, factor) == 2 * 0.5 + 8 * 0.75);
  for (std::size_t t = 0; t < 2; ++t) {
    CHECK(batch.trace.d_probabilities()(t, 0) == 0.5 * losses::detail::mean_probability_slope(2, 2));
    CHECK(batch.trace.d_probabilities()(t, 1) == 2);
  }
}
