// SPDX-License-Identifier: MIT
#include <hmoe/core/parameter.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/scores/rms_normalized.hpp>

#include "routing/scores/logits.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

namespace routing = hmoe::routing;
using namespace score_checks;
using routing::linear;
using support::error_of;

TEST_CASE("the score sees x over its root mean square, times the learned scale over the root of d") {
  routing::rms_normalized<linear<double>> score(4, 4, 0.25);
  for (std::size_t i = 0; i < 4; ++i) {
    score.inner().weight()(i, i) = 1; // the logits are the input that it sees
    score.scale()[i] = 1 + static_cast<double>(i);
  }
  matrix<double> x(2, 4);
  x(0, 0) = 1, x(0, 1) = -2, x(0, 2) = 3, x(0, 3) = 1; // a mean square of 15/4
  const auto trace = logits_of(score, x);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(trace.logits()(0, i) == doctest::Approx(x(0, i) / 2 * (1 + static_cast<double>(i)) / 2).epsilon(1e-14));
    CHECK(trace.logits()(1, i) == 0);
  }
}

TEST_CASE("its scale is a parameter that does not decay and starts at 1; epsilon must be given") {
  routing::rms_normalized<linear<double>> score(3, 2, 1e-6);
  std::string names;
  score.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
    names += info.full_name() + (info.decay ? "+ " : " ") + std::to_string(view.size()) + " ";
  });
  CHECK(names == "router.weight+ 6 router.input_scale 3 ");
  score.scale()[1] = 7;
  score.initialize(hmoe::seed{1}, 0, {});
  CHECK(score.scale()[1] == 1);
  CHECK(error_of([] { routing::rms_normalized<linear<double>>(3, 2, 0.0); }) ==
        "hmoe: rms_normalized with epsilon = 0: it must be finite and above 0");
}
