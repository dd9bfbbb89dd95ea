// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/projection.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>

namespace {
/// Tasks in descending order, so that none may rely on another.
struct backwards {
  static constexpr std::size_t concurrency() { return 1; }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    for (std::size_t i = count; i-- > 0;)
      task(i, std::size_t{0});
  }
};

void check(std::size_t tokens, std::size_t d, std::size_t n) {
  CAPTURE(tokens);
  support::random_source random(5);
  const hmoe::context ctx{hmoe::backends::reference{}, backwards{}};
  const auto x = support::random_matrix<double>(random, tokens, d),
             weight = support::random_matrix<double>(random, n, d),
             d_out = support::random_matrix<double>(random, tokens, n);
  auto out = support::random_matrix<double>(random, tokens, n), dx = support::random_matrix<double>(random, tokens, d),
       d_weight = support::random_matrix<double>(random, n, d);
  hmoe::matrix<double> expected(tokens, n), expected_dx = dx, expected_d_weight = d_weight; // both are added to
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t c = 0; c < d; ++c) {
        expected(t, j) += x(t, c) * weight(j, c);
        expected_dx(t, c) += d_out(t, j) * weight(j, c);
        expected_d_weight(j, c) += d_out(t, j) * x(t, c);
      }
  hmoe::routing::detail::project(ctx, x.view(), weight.view(), out.view());
  hmoe::routing::detail::project_backward(ctx, x.view(), weight.view(), d_out.view(), dx.view(), d_weight.view());
  CHECK(support::largest_difference(out.view(), expected.view()) < 1e-12);
  CHECK(support::largest_difference(dx.view(), expected_dx.view()) < 1e-12);
  CHECK(support::largest_difference(d_weight.view(), expected_d_weight.view()) < 1e-12);
}
} // namespace

TEST_CASE("a projection and its gradients against plain loops, for rows and columns of one task and of several") {
  check(0, 3, 2);
  check(1, 1, 1);
  check(70, 150, 5);
}
