// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/token_ids.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <vector>

using hmoe::index_t;

TEST_CASE("a hash selection gets the id of each token of the batch, or an error with both numbers") {
  const std::vector<index_t> ids{7, 7, 3};
  hmoe::router_trace<double> trace;
  trace.resize(3, 2, 0, false);
  const auto read = [&] { return hmoe::routing::detail::token_ids_of(trace); };
  CHECK(support::error_of(read) ==
        "hmoe: hash selection needs the id of each token: routing_inputs::token_ids has 0 for 3 tokens");
  trace.set_inputs({.token_ids = ids});
  CHECK(std::vector<index_t>(read().begin(), read().end()) == ids);
  trace.resize(2, 2, 0, false);
  CHECK(support::error_of(read) ==
        "hmoe: hash selection needs the id of each token: routing_inputs::token_ids has 3 for 2 tokens");
}
