// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/parameter_penalty.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <cstring>

using hmoe::losses::parameter_penalty;
using hmoe::losses::width_unit;

TEST_CASE("parameter_penalty is N Σ h_i f_i P̂_i, with h_i in the chosen unit") {
  support::random_source random(71);
  support::routing_batch batch(13, 4);
  batch.randomize(random);
  batch.widths = {3, 10, 4, 23};
  const auto expected = [&](double unit) {
    double sum = 0;
    for (std::size_t e = 0; e < 4; ++e)
      sum += 4 * (static_cast<double>(batch.widths[e]) / unit) * batch.rate(e) * batch.mean_probability(e);
    return doctest::Approx(sum).epsilon(1e-13);
  };
  CHECK(batch.evaluate(parameter_penalty{0.1}) == expected(10));
  CHECK(batch.evaluate(parameter_penalty{0.1, width_unit::mean}) == expected(10));
  CHECK(batch.evaluate(parameter_penalty{0.1, width_unit::raw}) == expected(1));
  CHECK(batch.evaluate(parameter_penalty{0.1, width_unit::max}) == expected(23));
}

TEST_CASE("its gradient runs through P̂ only") {
  support::random_source random(72);
  for (const auto unit : {width_unit::mean, width_unit::raw, width_unit::max}) {
    support::routing_batch batch(11, 5);
    batch.randomize(random);
    CHECK(batch.gradient_error_of(parameter_penalty{0.4, unit}) < 1e-6);
  }
}

TEST_CASE("with equal widths it is load_balance, to the bit, in value and gradient") {
  support::random_source random(73);
  for (const std::size_t width : {1U, 7U, 1536U}) {
    support::routing_batch a(9, 6), b(9, 6);
    a.randomize(random);
    b.set([&](std::size_t t, std::size_t e) { return a.trace.logits()(t, e); },
          [&](std::size_t t, std::size_t e) {
            const auto ids = a.assigned.experts_of(t);
            return std::find(ids.begin(), ids.end(), e) != ids.end();
          });
    a.widths.assign(6, width);
    CHECK(a.evaluate(parameter_penalty{0.1}) == b.evaluate(hmoe::losses::load_balance{0.1}));
    CHECK(std::memcmp(a.trace.d_probabilities().data(), b.trace.d_probabilities().data(), 54 * sizeof(double)) == 0);
  }
}

TEST_CASE("its documented values: uniform use, and use in proportion to 1/h") {
  const std::vector<std::size_t> widths{1, 2, 3, 6}; // Σ 1/h = 2, so f = K/(2h); mean 3, harmonic mean 2
  support::routing_batch batch(12, 4);
  batch.widths = widths;
  batch.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t t, std::size_t e) { return t % 4 == e; });
  CHECK(batch.evaluate(parameter_penalty{}) == doctest::Approx(1).epsilon(1e-14));
  batch.set([](std::size_t, std::size_t) { return 0.0; },
            [](std::size_t t, std::size_t e) {
              return e == (t < 6 ? 0U : t < 9 ? 1U : t < 11 ? 2U : 3U);
            });
  CHECK(batch.evaluate(parameter_penalty{}) == doctest::Approx(2.0 / 3.0).epsilon(1e-14));
}

TEST_CASE("experts that all have width 0 cannot be measured in the mean or the largest width") {
  support::routing_batch batch(3, 4);
  batch.widths.assign(4, 0);
  CHECK_THROWS_WITH_AS(batch.evaluate(parameter_penalty{}), "hmoe: parameter_penalty: all 4 experts have width 0",
                       hmoe::error);
  CHECK_THROWS_AS(batch.evaluate(parameter_penalty{0.1, width_unit::max}), hmoe::error);
  CHECK(batch.evaluate(parameter_penalty{0.1, width_unit::raw}) == 0);
}
