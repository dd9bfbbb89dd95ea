// SPDX-License-Identifier: MIT
// Score functions other than softmax, which score_functions.cpp tests.
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using hmoe::vector_view;
namespace routing = hmoe::routing;

namespace {
template <class T, class Function> std::vector<T> scores(const Function& function, const std::vector<T>& z) {
  std::vector<T> p(z.size());
  function.forward(vector_view<const T>(z), vector_view<T>(p));
  return p;
}
} // namespace

TEST_CASE("score functions are what their formulas say") {
  const std::vector<double> z{-30, -2, -0.5, 0, 0.5, 2, 30};
  const auto sigmoid = scores(routing::sigmoid{}, z), root = scores(routing::sqrt_softplus{}, z),
             relu = scores(routing::relu{}, z), same = scores(routing::unscored{}, z);
  for (std::size_t i = 0; i < z.size(); ++i) {
    CHECK(sigmoid[i] == doctest::Approx(1 / (1 + std::exp(-z[i]))).epsilon(1e-13));
    CHECK(root[i] == doctest::Approx(std::sqrt(std::log1p(std::exp(z[i])))).epsilon(1e-13));
    CHECK(relu[i] == std::max(z[i], 0.0));
    CHECK(same[i] == z[i]);
  }
}

TEST_CASE("score functions neither overflow nor hide a NaN") {
  const float large = 1e4F, nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(scores(routing::sigmoid{}, std::vector<float>{-large, large}) == std::vector<float>{0, 1});
  CHECK(scores(routing::sqrt_softplus{}, std::vector<float>{-large, large}) == std::vector<float>{0, 100});
  CHECK(std::isnan(scores(routing::sigmoid{}, std::vector<float>{nan})[0]));
  CHECK(std::isnan(scores(routing::sqrt_softplus{}, std::vector<float>{nan})[0]));
  CHECK(std::isnan(scores(routing::relu{}, std::vector<float>{nan})[0]));
  // Far below zero the slope of sqrt_softplus goes to 0 and not to 0/0.
  std::vector<float> z{-large}, p{0}, d_p{1}, d_z{5};
  routing::sqrt_softplus{}.backward(vector_view<const float>(z), vector_view<const float>(p),
                                    vector_view<const float>(d_p), vector_view<float>(d_z));
  CHECK(d_z[0] == 5);
}

TEST_CASE_TEMPLATE("the backward of a score function is its derivative, added to the sink", Function, routing::sigmoid,
                   routing::sqrt_softplus, routing::relu, routing::unscored) {
  support::random_source random(22);
  std::vector<double> z(8), d_p(8), d_z(8, 0.0), from_one(8, 1.0);
  for (std::size_t i = 0; i < z.size(); ++i) {
    z[i] = random.real(0.1, 3) * (i % 2 == 0 ? 1 : -1); // away from the kink of relu
    d_p[i] = random.real();
  }
  std::vector<double> p;
  const auto loss = [&] {
    p = scores(Function{}, z);
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
      sum += d_p[i] * p[i];
    return sum;
  };
  loss();
  for (auto* sink : {&d_z, &from_one})
    Function{}.backward(vector_view<const double>(z), vector_view<const double>(p), vector_view<const double>(d_p),
                        vector_view<double>(*sink));
  CHECK(support::gradient_error(z, d_z, loss) < 1e-6);
  for (std::size_t i = 0; i < z.size(); ++i)
    CHECK(from_one[i] == doctest::Approx(d_z[i] + 1).epsilon(1e-14));
}
