// SPDX-License-Identifier: MIT
#include <hmoe/routing/score_functions/softmax.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using hmoe::vector_view;
using hmoe::routing::softmax;

TEST_CASE("softmax is e^z over its sum, also for large logits") {
  for (const double shift : {0.0, 1000.0, -1000.0}) {
    const std::vector<double> z{shift + 1, shift - 2, shift + 0.5};
    std::vector<double> p(3);
    softmax{}.forward(vector_view<const double>(z), vector_view<double>(p));
    const double sum = std::exp(1.0) + std::exp(-2.0) + std::exp(0.5);
    CHECK(p[0] == doctest::Approx(std::exp(1.0) / sum).epsilon(1e-12));
    CHECK(p[1] == doctest::Approx(std::exp(-2.0) / sum).epsilon(1e-12));
    CHECK(p[2] == doctest::Approx(std::exp(0.5) / sum).epsilon(1e-12));
  }
}

TEST_CASE("a logit of minus infinity is an expert with probability 0") {
  const std::vector<float> z{0, -INFINITY, 0};
  std::vector<float> p(3);
  softmax{}.forward(vector_view<const float>(z), vector_view<float>(p));
  CHECK(p == std::vector<float>{0.5F, 0, 0.5F});
}

TEST_CASE("softmax's backward is the derivative, added to its sink") {
  support::random_source random(21);
  std::vector<double> z(6), p(6), d_p(6), d_z(6, 0.0), d_z_from_one(6, 1.0);
  for (std::size_t i = 0; i < z.size(); ++i) {
    z[i] = random.real(-3, 3);
    d_p[i] = random.real();
  }
  const auto loss = [&] {
    softmax{}.forward(vector_view<const double>(z), vector_view<double>(p));
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
      sum += d_p[i] * p[i];
    return sum;
  };
  loss();
  for (auto* sink : {&d_z, &d_z_from_one})
    softmax{}.backward(vector_view<const double>(z), vector_view<const double>(p), vector_view<const double>(d_p),
                       vector_view<double>(*sink));
  CHECK(support::gradient_error(z, d_z, loss) < 1e-6);
  for (std::size_t i = 0; i < z.size(); ++i)
    CHECK(d_z_from_one[i] == doctest::Approx(d_z[i] + 1).epsilon(1e-14));
}
