// SPDX-License-Identifier: MIT
#include <hmoe/routing/scores/cosine.hpp>

#include "routing/scores/logits.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using namespace score_checks;
using support::error_of;

TEST_CASE("cosine logits are cos(W_p x, e_i) / temperature") {
  support::random_source random(6);
  routing::cosine<double> score(d, experts, {.dimension = 3, .temperature = 0.2});
  randomize(score, 7);
  score.set_temperature(0.2);
  CHECK(score.temperature() == doctest::Approx(0.2));
  auto x = support::random_matrix<double>(random, tokens, d);
  std::fill_n(x.row(4).data(), d, 0.0); // no direction at all
  const auto trace = logits_of(score, x);
  const auto& frozen = score;
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<double> u;
    for (std::size_t c = 0; c < 3; ++c)
      u.push_back(dot(x.row(t), frozen.projection().row(c)));
    for (std::size_t e = 0; e < experts; ++e) {
      const auto v = frozen.embeddings().row(e);
      const double cosine = t == 4 ? 0 : dot(u, v) / std::sqrt(dot(u, u) * dot(v, v));
      CHECK(trace.logits()(t, e) == doctest::Approx(cosine / 0.2));
    }
  }
  CHECK(routing::cosine<double>(d, experts).dimension() == 3);
  CHECK(routing::cosine<double>(d, 1).dimension() == 1);
  CHECK(routing::cosine<double>(d, experts).temperature() == doctest::Approx(0.07));
}

TEST_CASE("cosine refuses what cannot be, with the numbers") {
  CHECK(error_of([] { routing::cosine<double>(d, experts, {.temperature = 0}); }) ==
        "hmoe: cosine with temperature = 0: it must be finite and above 0");
}
