// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/weightings/score_of_logit.hpp>

#include "routing/weightings/one_row.hpp"

#include <doctest/doctest.h>

#include <cmath>

namespace routing = hmoe::routing;

TEST_CASE("weights are another score function of all the logits") { // logits 0.5, -1, 2, 0.25; chosen 0, 2, 3
  using one_row::sigma;
  one_row::check_equal(one_row::weights(routing::score_of_logit<routing::sigmoid>{}),
                       {sigma(0.5), sigma(2), sigma(0.25)});
  const double sum = std::exp(0.5) + std::exp(-1.0) + std::exp(2.0) + std::exp(0.25);
  one_row::check_equal(one_row::weights(routing::score_of_logit<routing::softmax>{}),
                       {std::exp(0.5) / sum, std::exp(2.0) / sum, std::exp(0.25) / sum});
}
