// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_accumulator.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

using hmoe::losses::load_accumulator;

namespace {

hmoe::routed_batch<double> routed(support::routing_batch& batch) { return {batch.trace, batch.assigned, batch.widths}; }

} // namespace

TEST_CASE("the accumulator sums choices and tokens of batches") {
  support::random_source random(91);
  load_accumulator load(4);
  std::vector<std::uint64_t> expected(4);
  for (const std::size_t tokens : {5U, 0U, 7U}) {
    support::routing_batch batch(tokens, 4);
    batch.randomize(random);
    load.add(routed(batch));
    for (std::size_t e = 0; e < 4; ++e)
      expected[e] += batch.trace.tokens_per_expert()[e];
  }
  CHECK(std::ranges::equal(load.counts(), expected));
  CHECK(load.tokens() == 12);
  load.clear();
  CHECK(load.tokens() == 0);
  CHECK(std::ranges::count(load.counts(), 0U) == 4);
}

TEST_CASE("an all-reduce sees each batch once: N counts, then the tokens") {
  // Two processes that see the same batch: the sum over both is twice each number.
  load_accumulator load(3);
  std::size_t calls = 0;
  const auto all_reduce = [&](std::span<std::uint64_t> counts) {
    CHECK(counts.size() == 4);
    CHECK(counts[3] == 2);
    ++calls;
    for (std::uint64_t& count : counts)
      count *= 2;
  };
  support::routing_batch batch(2, 3);
  batch.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t t, std::size_t e) { return e >= t; });
  for (int i = 0; i < 3; ++i)
    load.add(routed(batch), all_reduce);
  CHECK(calls == 3);
  CHECK(load.tokens() == 12); // and not more: sums of earlier batches are not reduced again
  CHECK(std::ranges::equal(load.counts(), std::vector<std::uint64_t>{6, 12, 12}));
}

TEST_CASE("it can count first choices, and wants the experts that it was made for") {
  load_accumulator load(3, hmoe::losses::balance_counts::first_choice);
  support::routing_batch batch(4, 3);
  batch.set([](std::size_t, std::size_t e) { return e == 2 ? 1.0 : 0.0; },
            [](std::size_t, std::size_t e) { return e != 0; });
  load.add(routed(batch));
  CHECK(std::ranges::equal(load.counts(), std::vector<std::uint64_t>{0, 0, 4}));
  support::routing_batch other(4, 5);
  CHECK_THROWS_WITH_AS(load.add(routed(other)), doctest::Contains("5 experts"), hmoe::error);
}
