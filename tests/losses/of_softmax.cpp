// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/of_softmax.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/statistics/router_entropy.hpp>

#include "losses/routing_batch.hpp"
#include "support/error_of.hpp"
#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace losses = hmoe::losses;

namespace {
constexpr const char* no_probabilities = "an auxiliary loss on probabilities, but this router has none";

/// As a router with routing::unscored leaves it: p = z.
support::routing_batch unscored_batch(std::size_t tokens, std::size_t experts) {
  support::random_source random(211);
  support::routing_batch batch(tokens, experts);
  batch.randomize(random);
  batch.trace.set_has_probabilities(false);
  std::ranges::copy_n(batch.trace.logits().data(), static_cast<std::ptrdiff_t>(tokens * experts),
                      batch.trace.probabilities().data());
  return batch;
}
/// N Σ f P̂ with P = softmax(z), by the formula.
double by_formula(support::routing_batch& batch) {
  double value = 0;
  for (std::size_t e = 0; e < batch.experts(); ++e) {
    double mean = 0;
    for (std::size_t t = 0; t < batch.tokens(); ++t) {
      double sum = 0;
      for (const double z : batch.trace.logits().row(t))
        sum += std::exp(z);
      mean += std::exp(batch.trace.logits()(t, e)) / sum / static_cast<double>(batch.tokens());
    }
    value += static_cast<double>(batch.experts()) * batch.rate(e) * mean;
  }
  return value;
}
} // namespace

TEST_CASE("a loss on probabilities refuses a router that has none") {
  auto batch = unscored_batch(5, 4);
  const auto refused = [&](const auto& loss) {
    return support::error_of([&] { batch.evaluate(loss); }).find(no_probabilities) != std::string::npos;
  };
  CHECK(refused(losses::load_balance{}));
  CHECK(refused(losses::sequence_balance{}));
  CHECK(refused(losses::router_entropy{}));
  CHECK(refused(losses::importance{}));
  CHECK(refused(losses::compute_cost{}));
  CHECK(refused(losses::adaptive_l1{}));
  CHECK(batch.evaluate(losses::z{}) > 0); // reads logits
  CHECK(support::error_of([&] { static_cast<void>(hmoe::statistics::router_entropy(batch.trace)); }).find("softmax") !=
        std::string::npos);
  CHECK(std::ranges::all_of(batch.trace.d_probabilities().row(0), [](double v) { return v == 0; }));
}

TEST_CASE("of_softmax: the value by the formula, the gradient by differences, the trace as it was") {
  auto batch = unscored_batch(7, 5);
  const losses::of_softmax loss{losses::load_balance{0.3}};
  CHECK(batch.evaluate(loss) == doctest::Approx(by_formula(batch)).epsilon(1e-13));
  CHECK_FALSE(batch.trace.has_probabilities());
  CHECK(std::ranges::equal(batch.trace.probabilities().row(3), batch.trace.logits().row(3)));

  batch.trace.clear_gradients();
  batch.trace.d_probabilities()(2, 1) = 0.25; // another loss's, on the logits
  batch.evaluate(loss);
  const std::vector<double> found(batch.trace.d_logits().data(), batch.trace.d_logits().data() + 35);
  for (std::size_t t = 0; t < 7; ++t)
    for (const double d : batch.trace.d_probabilities().row(t))
      CHECK(d == 0);
  CHECK(support::gradient_error({batch.trace.logits().data(), 35}, found,
                                [&] { return 0.3 * by_formula(batch) + 0.25 * batch.trace.logits()(2, 1); }) < 1e-6);

  batch.trace.set_has_probabilities(true);
  CHECK(support::error_of([&] { batch.evaluate(loss); }).find("without of_softmax") != std::string::npos);
}

TEST_CASE("of_softmax leaves padding and experts out of service alone") {
  auto batch = unscored_batch(3, 4);
  const std::vector<std::uint8_t> valid{1, 0, 1};
  batch.trace.set_inputs({.valid = valid});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (std::size_t e = 0; e < 4; ++e)
    batch.trace.probabilities()(1, e) = nan;
  for (const std::size_t t : {0U, 2U}) { // expert 3 is out of service
    batch.trace.logits()(t, 3) = -std::numeric_limits<double>::infinity();
    batch.trace.probabilities()(t, 3) = 0;
  }
  const double value = batch.evaluate(losses::of_softmax{losses::router_entropy{1}});
  double expected = 0;
  for (const std::size_t t : {0U, 2U}) {
    double sum = 0;
    for (std::size_t e = 0; e < 3; ++e)
      sum += std::exp(batch.trace.logits()(t, e));
    for (std::size_t e = 0; e < 3; ++e) {
      const double p = std::exp(batch.trace.logits()(t, e)) / sum;
      expected -= p * std::log(p) / 2;
    }
    CHECK(batch.trace.probabilities()(t, 3) == 0);
  }
  CHECK(value == doctest::Approx(expected).epsilon(1e-12));
  CHECK(std::isnan(batch.trace.probabilities()(1, 0)));
  CHECK(batch.trace.d_logits()(1, 0) == 0);
}

TEST_CASE("gpt_oss, at balance: 4, as transformers has it; without of_softmax an error") {
  constexpr std::size_t experts = 8, d = 8;
  hmoe::routing::presets::gpt_oss<double> router{d, experts, 4};
  hmoe::matrix<double> x(experts, d);
  for (std::size_t e = 0; e < experts; ++e) { // token t prefers experts t to t + 3, all round
    router.score().bias()[e] = 10;            // raises logits and not probabilities
    for (std::size_t i = 0; i < 4; ++i)
      x(e, (e + i) % experts) = 1;
    router.score().weight()(e, e) = 1;
  }
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(experts, experts, 0, true);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), trace, assigned);
  const std::vector<std::size_t> widths(experts, 1);
  hmoe::routed_batch<double> batch{trace, assigned, widths};
  CHECK(hmoe::objective{losses::of_softmax{losses::load_balance{}}}.evaluate(batch).value("load_balance") ==
        doctest::Approx(4).epsilon(1e-13));
  CHECK(support::error_of([&] {
          static_cast<void>(hmoe::objective{losses::load_balance{}}.evaluate(batch));
        }).find("losses::of_softmax{losses::load_balance{1e-2}}") != std::string::npos);
}
