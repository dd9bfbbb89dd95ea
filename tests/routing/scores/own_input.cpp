// SPDX-License-Identifier: MIT
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/own_input.hpp>

#include "routing/scores/logits.hpp"

#include <doctest/doctest.h>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;

TEST_CASE("own_input changes no logits; the router says what it reads, through other scores, too") {
  routing::own_input<linear<double>> own(d, experts);
  own.inner().initialize(hmoe::seed{1}, 0, {});
  matrix<double> x(9, d);
  for (std::size_t i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<double>(i % 7) - 3;
  const auto a = logits_of(own, x), b = logits_of(own.inner(), x);
  for (std::size_t t = 0; t < 9; ++t)
    for (std::size_t e = 0; e < experts; ++e)
      CHECK(a.logits()(t, e) == b.logits()(t, e));
  using jittered = routing::jittered<routing::own_input<linear<double>>>;
  static_assert(routing::router<jittered, routing::top_k<>>::reads_router_x());
  static_assert(!routing::router<routing::jittered<linear<double>>, routing::top_k<>>::reads_router_x());
}
