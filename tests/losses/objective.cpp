// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace losses = hmoe::losses;

namespace {
/// What objective::evaluate(layer, tape) needs of a layer.
struct fake_layer {
  hmoe::routed_batch<double> routing(support::routing_batch& batch) const {
    return {batch.trace, batch.assigned, batch.widths};
  }
};
/// A user's own loss.
struct first_probability {
  double coefficient = 2;
  static constexpr std::string_view name = "first_probability";
  template <class T> double evaluate(hmoe::routed_batch<T>& batch) const {
    double sum = 0;
    for (std::size_t t = 0; t < batch.trace.tokens(); ++t) {
      sum += double{batch.trace.probabilities()(t, 0)};
      batch.trace.d_probabilities()(t, 0) += static_cast<T>(coefficient);
    }
    return sum;
  }
};
/// One that relies on the objective to look for sinks.
struct unchecked {
  double coefficient = 1;
  static constexpr std::string_view name = "unchecked";
  template <class T> double evaluate(hmoe::routed_batch<T>& batch) const {
    if (batch.trace.tokens() != 0)
      batch.trace.d_probabilities()(0, 0) += static_cast<T>(coefficient);
    return 0;
  }
};
} // namespace

TEST_CASE("an objective reports each loss by name and adds up coefficient times value") {
  support::random_source random(101);
  support::routing_batch batch(9, 5), alone(9, 5);
  batch.randomize(random);
  const hmoe::objective aux{losses::parameter_penalty{0.1}, losses::router_entropy{0.03}, losses::z{0.001},
                            first_probability{}};
  const auto report = aux.evaluate(fake_layer{}, batch);
  alone.widths = batch.widths;
  alone.set([&](std::size_t t, std::size_t e) { return batch.trace.logits()(t, e); },
            [&](std::size_t t, std::size_t e) {
              const auto ids = batch.assigned.experts_of(t);
              return std::find(ids.begin(), ids.end(), e) != ids.end();
            });
  const double penalty = alone.evaluate(losses::parameter_penalty{0.1}),
               entropy = alone.evaluate(losses::router_entropy{0.03}), z = alone.evaluate(losses::z{0.001}),
               own = alone.evaluate(first_probability{});
  REQUIRE(report.terms.size() == 4);
  CHECK(report.terms[0].name == "parameter_penalty");
  CHECK(report.terms[1].name == "router_entropy");
  CHECK(report.terms[1].coefficient == 0.03);
  CHECK(report.value("parameter_penalty") == penalty);
  CHECK(report.value("router_entropy") == entropy);
  CHECK(report.value("z") == z);
  CHECK(report.value("first_probability") == own);
  CHECK(report.total() == doctest::Approx(0.1 * penalty + 0.03 * entropy + 0.001 * z + 2 * own).epsilon(1e-15));
  // Sinks hold the sum of the gradients, in the same order of addition.
  for (std::size_t i = 0; i < batch.trace.logits().size(); ++i) {
    CHECK(batch.trace.d_probabilities().data()[i] == alone.trace.d_probabilities().data()[i]);
    CHECK(batch.trace.d_logits().data()[i] == alone.trace.d_logits().data()[i]);
  }
}

TEST_CASE("an objective refuses a trace without sinks before any loss sees it") {
  support::routing_batch batch(3, 5);
  hmoe::router_trace<double> inference;
  inference.resize(3, 5, 0, false);
  hmoe::routed_batch<double> routed{inference, batch.assigned, batch.widths};
  const hmoe::objective aux{unchecked{}};
  CHECK_THROWS_WITH_AS((void)aux.evaluate(routed),
                       "hmoe: an auxiliary loss needs a trace with gradient sinks for 3 tokens, this one has 0: run "
                       "forward with a tape",
                       hmoe::error);
}

TEST_CASE("a name that is not there is an error, nothing is worth zero, and no tokens cost nothing") {
  support::routing_batch batch(0, 5);
  const hmoe::objective aux{losses::load_balance{}, losses::z{}};
  const auto report = aux.evaluate(fake_layer{}, batch);
  CHECK(report.total() == 0);
  CHECK_THROWS_WITH_AS((void)report.value("entropy"), "hmoe: no loss named 'entropy' among the 2 of this objective",
                       hmoe::error);
  CHECK(hmoe::objective<>{}.evaluate(fake_layer{}, batch).total() == 0);
}
