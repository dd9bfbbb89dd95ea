// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/raw.hpp>

#include "routing/weightings/rows.hpp"

#include <doctest/doctest.h>

#include <cstddef>

namespace routing = hmoe::routing;

TEST_CASE("raw weights are the probabilities") {
  support::random_source random(11);
  for (int round = 0; round < 200; ++round) {
    const rows::row r(random, 6);
    const auto w = r.weights(routing::raw{});
    for (std::size_t i = 0; i < r.chosen.size(); ++i)
      CHECK(w[i] == r.p[r.chosen[i]]);
  }
}

TEST_CASE("backward through raw and softmax is the derivative by the logits") { rows::check_backward<routing::raw>(); }
