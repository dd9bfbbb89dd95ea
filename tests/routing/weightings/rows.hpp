// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace rows {

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;

struct row {
  std::vector<double> logits, p;
  std::vector<index_t> chosen;

  row(support::random_source& random, std::size_t experts) : logits(experts), p(experts) {
    for (double& z : logits)
      z = random.real(-2, 2);
    for (index_t e = 0; e < experts; ++e)
      if (random.real() > 0)
        chosen.push_back(e);
    if (chosen.empty())
      chosen.push_back(1);
    update();
  }
  void update() { routing::softmax{}.forward(vector_view<const double>(logits), vector_view<double>(p)); }
  template <class Weighting> std::vector<double> weights(const Weighting& weighting) const {
    std::vector<double> w(chosen.size());
    weighting.forward(vector_view<const double>(logits), vector_view<const double>(p),
                      vector_view<const index_t>(chosen), vector_view<double>(w));
    return w;
  }
};

/// Backward through weighting and softmax is the derivative by the logits.
template <class Weighting> void check_backward() {
  support::random_source random(12);
  for (int round = 0; round < 50; ++round) {
    row r(random, 5);
    const std::vector<double> w = r.weights(Weighting{});
    std::vector<double> dw(w.size()), d_logits(5, 0), d_p(5, 0);
    for (double& v : dw)
      v = random.real();
    Weighting{}.backward(vector_view<const double>(r.logits), vector_view<const double>(r.p),
                         vector_view<const index_t>(r.chosen), vector_view<const double>(w),
                         vector_view<const double>(dw), vector_view<double>(d_logits), vector_view<double>(d_p));
    routing::softmax{}.backward(vector_view<const double>(r.logits), vector_view<const double>(r.p),
                                vector_view<const double>(d_p), vector_view<double>(d_logits));
    const auto loss = [&] {
      r.update();
      const auto now = r.weights(Weighting{});
      double sum = 0;
      for (std::size_t i = 0; i < now.size(); ++i)
        sum += dw[i] * now[i];
      return sum;
    };
    CHECK(support::gradient_error(r.logits, d_logits, loss) < 1e-6);
  }
}

} // namespace rows
