// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>

#include "routing/batch_selections/traces.hpp"
#include "support/error_of.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using namespace batches;
using support::error_of;

TEST_CASE("random_hash: the id alone decides, choices are different and uniform") {
  std::vector<index_t> words(6000);
  for (std::size_t t = 0; t < words.size(); ++t)
    words[t] = static_cast<index_t>(t % 3000);
  hmoe::router_trace<double> trace;
  trace.resize(words.size(), 5, 0, false);
  trace.set_inputs({.token_ids = words});
  const auto one = choose(routing::random_hash{1, hmoe::seed{4}}, trace),
             three = choose(routing::random_hash{3, hmoe::seed{4}}, trace),
             other = choose(routing::random_hash{3, hmoe::seed{5}}, trace);
  CHECK(three != other);
  for (std::size_t t = 0; t < 3000; ++t) {
    REQUIRE(three[t] == three[t + 3000]);
    REQUIRE(three[t].size() == 3);
    REQUIRE(std::adjacent_find(three[t].begin(), three[t].end()) == three[t].end());
    REQUIRE(three[t].back() < 5);
    // The first draw is the same one for every k.
    REQUIRE(std::find(three[t].begin(), three[t].end(), one[t][0]) != three[t].end());
  }
  for (const std::size_t load : loads_of(three, 5))
    CHECK(static_cast<double>(load) == doctest::Approx(3600).epsilon(0.06));
  for (const id_list& row : choose(routing::random_hash{5}, trace))
    REQUIRE(row == id_list{0, 1, 2, 3, 4});
  trace.set_inputs({.token_ids = hmoe::vector_view<const index_t>(words.data(), 10)});
  CHECK(error_of([&] { choose(routing::random_hash{1}, trace); }) ==
        "hmoe: hash selection needs the id of each token: routing_inputs::token_ids has 10 for 6000 tokens");
  CHECK(error_of([] { routing::random_hash{6}.validate(5); }) ==
        "hmoe: random_hash with k = 6 for 5 experts: k must be 1 to 5");
}

TEST_CASE("the layer of the Hash Layers paper: weight 1, no gradient to a router") {
  const std::vector<index_t> words{3, 1, 4, 1, 5, 9, 2};
  routing::router<routing::no_score<double>, routing::random_hash, routing::equal_weights> router(
      4, 3, routing::random_hash{1});
  const auto found = support::check_router_gradients(router, {.token_ids = words});
  CHECK(found.worst < 1e-6);
  CHECK(found.routed == 7);
}
