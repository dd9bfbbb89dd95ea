// SPDX-License-Identifier: MIT
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "routing/weightings/rows.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;

TEST_CASE("over softmax probabilities it is renormalized up to rounding") {
  support::random_source random(11);
  for (int round = 0; round < 200; ++round) {
    const rows::row r(random, 6);
    const auto w = r.weights(routing::softmax_over_selected{}), expected = r.weights(routing::renormalized{});
    double sum = 0;
    for (std::size_t i = 0; i < r.chosen.size(); ++i) {
      CHECK(w[i] == doctest::Approx(expected[i]).epsilon(1e-13));
      sum += w[i];
    }
    CHECK(sum == doctest::Approx(1).epsilon(1e-14));
  }
}

TEST_CASE("softmax over the selected survives probabilities that underflow") {
  const std::vector<float> logits{0, -200, -201}, p{1, 0, 0};
  const std::vector<index_t> chosen{1, 2};
  std::vector<float> w(2);
  routing::softmax_over_selected{}.forward(vector_view<const float>(logits), vector_view<const float>(p),
                                           vector_view<const index_t>(chosen), vector_view<float>(w));
  CHECK(w[0] == doctest::Approx(1 / (1 + std::exp(-1.0))));
  CHECK(w[0] + w[1] == doctest::Approx(1));
}

TEST_CASE("backward through softmax_over_selected is the derivative by the logits") {
  rows::check_backward<routing::softmax_over_selected>();
}
