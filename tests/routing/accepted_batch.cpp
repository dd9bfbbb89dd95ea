// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/accepted_batch.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/replay.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>

#include <doctest/doctest.h>

#include <cstddef>

TEST_CASE("the batches that a router takes: a replay's number of tokens, a table's ids, and what any_router holds") {
  namespace routing = hmoe::routing;
  using any = routing::any_router<float, hmoe::context<hmoe::backends::reference>>;
  const auto check = [](const auto& router, std::size_t tokens, std::size_t vocabulary) {
    for (const auto accepted : {routing::accepted_batch_of(router), routing::accepted_batch_of(any(router))}) {
      CHECK(accepted.tokens == tokens);
      CHECK(accepted.vocabulary == vocabulary);
    }
  };
  hmoe::assignment<float> recorded;
  recorded.resize_tokens(7);
  check(routing::replay<float>(4, 3, recorded), 7, 0);
  check(routing::router<routing::no_score<float>, routing::hash_table, routing::equal_weights>(
            4, 3, routing::hash_table({0, 2, 1, 0, 2, 1, 0, 1}, 2)),
        0, 4);
  check(routing::top_k_router<float>(4, 3, 2), 0, 0);
}
