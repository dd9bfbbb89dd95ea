// SPDX-License-Identifier: MIT
#include <hmoe/losses/importance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::gate_values;
using hmoe::losses::importance;

namespace {

constexpr gate_values kinds[] = {gate_values::probabilities, gate_values::selected, gate_values::renormalized};

double gate(const support::routing_batch& batch, gate_values kind, std::size_t t, std::size_t e) {
  const auto ids = batch.assigned.experts_of(t);
  const double p = batch.trace.probabilities()(t, e);
  if (kind == gate_values::probabilities)
    return p;
  if (std::ranges::find(ids, e) == ids.end())
    return 0;
  if (kind == gate_values::selected)
    return p;
  double sum = 0;
  for (const hmoe::index_t id : ids)
    sum += batch.trace.probabilities()(t, id);
  return p / sum;
}

} // namespace

TEST_CASE("importance is the squared coefficient of variation of the gates' sums") {
  support::random_source random(111);
  for (const gate_values kind : kinds) {
    support::routing_batch batch(9, 5);
    batch.randomize(random);
    support::spread_probabilities(random, batch);
    std::vector<double> sums(5);
    double mean = 0, squares = 0;
    for (std::size_t e = 0; e < 5; ++e)
      for (std::size_t t = 0; t < 9; ++t)
        sums[e] += gate(batch, kind, t, e);
    for (const double sum : sums)
      mean += sum / 5;
    for (const double sum : sums)
      squares += sum * sum;
    const double unbiased = (squares - 5 * mean * mean) / 4;
    const importance loss{0.9, kind};
    CHECK(batch.evaluate(loss) == doctest::Approx(unbiased / (mean * mean + 1e-10)).epsilon(1e-12));
    CHECK(support::sink_error(batch, loss) < 1e-6);
  }
}

TEST_CASE("its gradient through the softmax") {
  support::random_source random(112);
  support::routing_batch batch(9, 5);
  batch.randomize(random);
  for (const gate_values kind : kinds)
    CHECK(support::softmax_error(batch, importance{0.9, kind}) < 1e-6);
}

TEST_CASE("0 at balance, about N when one expert has all, 0 for a single expert and without tokens") {
  for (const gate_values kind : kinds) {
    support::routing_batch batch(8, 4);
    batch.set([](std::size_t, std::size_t) { return 0.0; },
              [](std::size_t t, std::size_t e) { return (t + e) % 4 < 2; });
    CHECK(batch.evaluate(importance{1, kind}) == doctest::Approx(0).epsilon(1e-14));
    batch.set([](std::size_t, std::size_t e) { return e == 1 ? 60.0 : 0.0; },
              [](std::size_t, std::size_t e) { return e == 1; });
    // var = (1 − 1/N)/(N − 1)·T² = T²/N, mean² = T²/N²
    CHECK(batch.evaluate(importance{1, kind}) == doctest::Approx(4).epsilon(1e-9));
    support::routing_batch single(3, 1), none(0, 4), unrouted(3, 4);
    CHECK(single.evaluate(importance{1, kind}) == 0);
    CHECK(none.evaluate(importance{1, kind}) == 0);
    CHECK(unrouted.evaluate(importance{1, kind}) == 0);
  }
}

TEST_CASE("with all experts selected, renormalised gates are the softmax probabilities") {
  support::random_source random(113);
  support::routing_batch batch(6, 4);
  batch.set([&](std::size_t, std::size_t) { return random.real(-1, 1); },
            [](std::size_t, std::size_t) { return true; });
  const double value = batch.evaluate(importance{1, gate_values::probabilities});
  CHECK(batch.evaluate(importance{1, gate_values::selected}) == doctest::Approx(value).epsilon(1e-13));
  CHECK(batch.evaluate(importance{1, gate_values::renormalized}) == doctest::Approx(value).epsilon(1e-12));
}
