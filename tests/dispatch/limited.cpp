// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/sorted.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

namespace capacity = hmoe::capacity;
using hmoe::dispatch::padded;
using hmoe::dispatch::sorted;

namespace {

/// The same drops with and without padding: same bits everywhere, padding aside.
template <class T, class Capacity, class Order> void check_same(Capacity limit, Order order) {
  const hmoe::routing::top_k_router<T> router(10, 6, 2);
  const auto plain = support::make_layer<T>(sorted{limit, order}, router);
  const auto filled = support::make_layer<T>(padded{limit, order}, router);
  const hmoe::context one{hmoe::backends::reference{}};
  const hmoe::context two{hmoe::backends::reference{}, hmoe::executors::openmp{2}};
  for (const std::size_t tokens : {0U, 1U, 3U, 64U, 300U}) {
    CAPTURE(tokens);
    const auto expected = support::run_passes(plain, one, tokens);
    for (const auto& got : {support::run_passes(filled, one, tokens), support::run_passes(filled, two, tokens),
                            support::run_passes(plain, two, tokens)}) {
      CHECK(support::same_bits(got.y, expected.y));
      CHECK(support::same_bits(got.inferred, expected.y));
      CHECK(support::same_bits(got.dx, expected.dx));
      CHECK(support::same_bits(got.gradients, expected.gradients));
    }
  }
}

} // namespace

TEST_CASE_TEMPLATE("padded drops what sorted drops, to the same bits", T, float, double) {
  check_same<T>(capacity::by_factor{1}, capacity::keep_first{});
  check_same<T>(capacity::by_factor{0.4}, capacity::keep_heaviest{});
  check_same<T>(capacity::by_width{1.25}, capacity::keep_first_choices{});
  check_same<T>(capacity::fixed{7}, capacity::keep_random{hmoe::seed{3}});
}

TEST_CASE("a strategy refuses a capacity that makes no sense when it is made") {
  CHECK_THROWS_WITH_AS(padded{capacity::by_factor{-1}}, "hmoe: a capacity factor of -1: it must be above 0",
                       hmoe::error);
  CHECK_THROWS_WITH_AS(sorted{capacity::by_factor{0}}, "hmoe: a capacity factor of 0: it must be above 0", hmoe::error);
}
