// SPDX-License-Identifier: MIT
#include <hmoe/routing/controllers/bias_load.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using support::error_of;

TEST_CASE("load in tokens and in FLOPs adds up over calls") {
  const std::vector<index_t> counts{4, 0, 1};
  const std::vector<double> flops{1, 5, 10};
  std::vector<double> tokens(3), work(3);
  for (int i = 0; i < 2; ++i) {
    routing::load_in_tokens(counts, tokens);
    routing::load_in_flops(counts, flops, work);
  }
  CHECK(tokens == std::vector<double>{8, 0, 2});
  CHECK(work == std::vector<double>{8, 0, 20});
  CHECK(error_of([&] { routing::load_in_flops(counts, std::vector<double>(2), work); }) ==
        "hmoe: a load of 3 experts for counts of 3 and costs of 2");
  CHECK(error_of([&] { routing::load_in_tokens(std::vector<index_t>(2), tokens); }) ==
        "hmoe: a load of 3 experts for counts of 2");
}
