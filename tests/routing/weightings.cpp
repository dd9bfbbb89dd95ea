// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

using hmoe::index_t;
using hmoe::vector_view;
namespace routing = hmoe::routing;

namespace {
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
} // namespace

TEST_CASE("weights are what their formulas say") {
  support::random_source random(11);
  for (int round = 0; round < 200; ++round) {
    const row r(random, 6);
    double total = 0;
    for (const index_t e : r.chosen)
      total += r.p[e];
    const auto raw = r.weights(routing::raw{}), normalized = r.weights(routing::renormalized{}),
               selected = r.weights(routing::softmax_over_selected{});
    double sum = 0, selected_sum = 0;
    for (std::size_t i = 0; i < r.chosen.size(); ++i) {
      CHECK(raw[i] == r.p[r.chosen[i]]);
      CHECK(normalized[i] == doctest::Approx(r.p[r.chosen[i]] / total).epsilon(1e-14));
      // Over softmax probabilities the two are the same up to rounding.
      CHECK(selected[i] == doctest::Approx(normalized[i]).epsilon(1e-13));
      sum += normalized[i];
      selected_sum += selected[i];
    }
    CHECK(sum == doctest::Approx(1).epsilon(1e-14));
    CHECK(selected_sum == doctest::Approx(1).epsilon(1e-14));
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

TEST_CASE_TEMPLATE("backward through weighting and softmax is the derivative by the logits", Weighting, routing::raw,
                   routing::renormalized, routing::softmax_over_selected) {
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
