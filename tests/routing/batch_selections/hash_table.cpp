// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/hash_table.hpp>

#include "routing/batch_selections/traces.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using namespace batches;
using support::error_of;

TEST_CASE("a hash table sends each id where it says") {
  const routing::hash_table table({0, 2, 1, 0}, 2); // two ids
  table.validate(3);
  const std::vector<index_t> words{1, 0, 1};
  hmoe::router_trace<double> trace;
  trace.resize(3, 3, 0, false);
  trace.set_inputs({.token_ids = words});
  CHECK(choose(table, trace) == std::vector<id_list>{{0, 1}, {0, 2}, {0, 1}});
  CHECK(error_of([&] { table.validate(2); }) == "hmoe: hash_table sends id 0 to expert 2 of 2");
  CHECK(error_of([] { routing::hash_table({0, 2, 1, 1}, 2).validate(3); }) ==
        "hmoe: hash_table sends id 1 to expert 1 twice");
  CHECK(error_of([] { routing::hash_table({0, 2, 1}, 2); }) ==
        "hmoe: a hash table of 3 values is not made of rows of k = 2");
  const std::vector<index_t> beyond{2, 0, 1};
  trace.set_inputs({.token_ids = beyond});
  CHECK(error_of([&] { choose(table, trace); }) == "hmoe: token 0 has vocabulary id 2, the hash table ends at 2");
}
