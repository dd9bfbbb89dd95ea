// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include "routing/weightings/one_row.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace routing = hmoe::routing;
using namespace one_row;

TEST_CASE("weights are the sigmoids of the chosen logits") {
  check_equal(weights(routing::sigmoid_of_logit{}), {sigma(0.5), sigma(2), sigma(0.25)});
}
