// SPDX-License-Identifier: MIT
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include <doctest/doctest.h>

namespace routing = hmoe::routing;
using routing::linear;
using routing::router;
using routing::top_k;

TEST_CASE("on the input side and on the output side are different layers") {
  using weighting = routing::sigmoid_of_logit;
  static_assert(router<linear<double>, top_k<>, routing::on_input_side<weighting>>::weights_on_input());
  static_assert(!router<linear<double>, top_k<>, weighting>::weights_on_input());
}
