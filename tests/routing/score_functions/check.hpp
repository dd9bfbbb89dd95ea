// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace functions {

using hmoe::vector_view;

template <class T, class Function> std::vector<T> scores(const Function& function, const std::vector<T>& z) {
  std::vector<T> p(z.size());
  function.forward(vector_view<const T>(z), vector_view<T>(p));
  return p;
}

/// The backward of a score function is its derivative, added to the sink.
template <class Function> void check_backward() {
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

} // namespace functions
