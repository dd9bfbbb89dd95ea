// SPDX-License-Identifier: MIT
#include <hmoe/losses/smooth_load.hpp>

#include "losses/load_formulas.hpp"
#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <vector>

using hmoe::losses::smooth_load;
using support::normal_cdf;
using support::squared_variation;

namespace {

/// Assigns the k largest logits of each token, and leaves the logits as they are.
void select_largest(support::routing_batch& batch, std::size_t k) {
  const hmoe::matrix_view<const double> z = batch.trace.logits();
  const auto logit = [&](std::size_t t, std::size_t e) { return z(t, e); };
  batch.set(logit, [&](std::size_t t, std::size_t e) {
    std::size_t larger = 0;
    for (std::size_t i = 0; i < batch.experts(); ++i)
      larger += z(t, i) > z(t, e) ? 1 : 0;
    return larger < k;
  });
}

/// The k-th largest logit of the token among the experts other than `excluded`.
double kth_excluding(const support::routing_batch& batch, std::size_t k, std::size_t t, std::size_t excluded) {
  std::vector<double> others;
  for (std::size_t e = 0; e < batch.experts(); ++e)
    if (e != excluded)
      others.push_back(batch.trace.logits()(t, e));
  std::ranges::sort(others, std::greater{});
  return others[k - 1];
}

} // namespace

TEST_CASE("smooth_load is CV² of the probability to be selected under fresh noise, as in V-MoE") {
  support::random_source random(121);
  for (const std::size_t k : {1U, 2U, 4U}) {
    support::routing_batch batch(9, 5);
    batch.randomize(random);
    select_largest(batch, k);
    for (const double stddev : {0.0, 0.5}) {
      const double sigma = stddev > 0 ? stddev : 1.0 / 5;
      std::vector<double> loads(5);
      for (std::size_t t = 0; t < 9; ++t)
        for (std::size_t e = 0; e < 5; ++e)
          loads[e] += normal_cdf((batch.trace.logits()(t, e) - kth_excluding(batch, k, t, e)) / sigma);
      const smooth_load loss{0.9, stddev};
      CHECK(batch.evaluate(loss) == doctest::Approx(squared_variation(loads)).epsilon(1e-11));
      CHECK(support::sink_error(batch, loss) < 1e-6);
    }
  }
}

TEST_CASE("0 at balance, for a single expert, without tokens, and when tokens select all or none") {
  support::routing_batch batch(8, 4), single(3, 1), none(0, 4), all(3, 4), unrouted(3, 4);
  const auto turn = [](std::size_t t, std::size_t e) { return (t + e) % 4; };
  batch.set([&](std::size_t t, std::size_t e) { return static_cast<double>(turn(t, e)); },
            [&](std::size_t t, std::size_t e) { return turn(t, e) >= 2; });
  CHECK(batch.evaluate(smooth_load{}) == doctest::Approx(0).epsilon(1e-14));
  all.set([](std::size_t, std::size_t e) { return static_cast<double>(e); },
          [](std::size_t, std::size_t) { return true; });
  for (support::routing_batch* other : {&single, &none, &all, &unrouted})
    CHECK(other->evaluate(smooth_load{}) == 0);
}

TEST_CASE("a token that selects all adds 1 to every load") {
  support::routing_batch batch(2, 2);
  batch.set([](std::size_t, std::size_t e) { return e == 0 ? 30.0 : 0.0; },
            [](std::size_t t, std::size_t e) { return t == 0 || e == 0; });
  CHECK(batch.evaluate(smooth_load{}) == doctest::Approx(squared_variation({2, 1})).epsilon(1e-12));
}

TEST_CASE("smooth_load refuses a negative deviation") {
  support::routing_batch batch(2, 2);
  CHECK_THROWS_AS(batch.evaluate(smooth_load{1, -1}), hmoe::error);
}
