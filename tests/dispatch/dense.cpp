// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/testing/dispatch_laws.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

TEST_CASE("dense is the weighted sum of what each selected expert returns") {
  using T = double;
  const auto layer = support::make_layer<T>(hmoe::dispatch::dense{}, hmoe::routing::top_k_router<T>(10, 6, 3));
  const hmoe::context cpu{hmoe::backends::reference{}};
  support::random_source random(13);
  const std::size_t tokens = 40;
  const auto x = support::random_matrix<T>(random, tokens, 10);
  hmoe::matrix<T> y(tokens, 10);
  auto tape = layer.make_tape(tokens);
  layer.forward(cpu, x, y, tape);
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<T> sum(10, 0);
    const auto ids = std::as_const(tape).assignment().experts_of(t);
    const auto weights = std::as_const(tape).assignment().weights_of(t);
    REQUIRE(ids.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      hmoe::matrix<T> out(1, 10), saved(1, layer.experts().saved_per_row(ids[i]));
      layer.experts().forward(hmoe::backends::reference{}, ids[i], x.view().row_block(t, 1), out.view(), saved.view());
      for (std::size_t c = 0; c < 10; ++c)
        sum[c] += weights[i] * out(0, c);
    }
    for (std::size_t c = 0; c < 10; ++c)
      CHECK(y(t, c) == sum[c]);
  }
}

TEST_CASE("dense itself keeps the laws and the promises about bits") {
  CHECK(hmoe::testing::check_dispatch(hmoe::dispatch::dense{}).text() == "");
  support::check_strategy<float>(hmoe::dispatch::dense{});
}
