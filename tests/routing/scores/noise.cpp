// SPDX-License-Identifier: MIT
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/noisy.hpp>

#include "routing/scores/logits.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;

TEST_CASE("kinds of noise are independent of each other") {
  matrix<double> x(1000, 1);
  for (std::size_t t = 0; t < x.rows(); ++t)
    x(t, 0) = 1;
  routing::gumbel<linear<double>> gumbel(1, 1);
  routing::noisy<linear<double>> normal(1, 1);
  routing::jittered<linear<double>> jitter(1, 1, 0.5);
  jitter.inner().weight()(0, 0) = 1;
  const auto a = logits_of(gumbel, x, with_noise()), b = logits_of(normal, x, with_noise()),
             c = logits_of(jitter, x, with_noise());
  const auto correlation = [&](const auto& u, const auto& v) {
    double su = 0, sv = 0, suu = 0, svv = 0, suv = 0;
    for (std::size_t t = 0; t < 1000; ++t) {
      const double p = u.logits()(t, 0), q = v.logits()(t, 0);
      su += p, sv += q, suu += p * p, svv += q * q, suv += p * q;
    }
    return (suv - su * sv / 1000) / std::sqrt((suu - su * su / 1000) * (svv - sv * sv / 1000));
  };
  CHECK(std::abs(correlation(a, b)) < 0.12);
  CHECK(std::abs(correlation(a, c)) < 0.12);
  CHECK(std::abs(correlation(b, c)) < 0.12);
}
