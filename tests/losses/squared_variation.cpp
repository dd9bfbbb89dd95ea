// SPDX-License-Identifier: MIT
#include <hmoe/losses/squared_variation.hpp>

#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

#include <vector>

using hmoe::vector_view;

namespace {
double variation_of(const std::vector<double>& x, std::vector<double>& slopes) {
  slopes.assign(x.size(), 77);
  return hmoe::losses::detail::squared_variation(vector_view<const double>(x), vector_view<double>(slopes));
}
} // namespace

TEST_CASE("the squared coefficient of variation, with the unbiased variance") {
  std::vector<double> slopes;
  CHECK(variation_of({1, 2, 6}, slopes) == doctest::Approx((4 + 1 + 9) / 2.0 / 9).epsilon(1e-10));
  CHECK(variation_of({2, 2, 2}, slopes) == 0);
  CHECK(variation_of({0, 0}, slopes) == 0);
  CHECK(variation_of({5}, slopes) == 0);
  CHECK(slopes == std::vector<double>{0});
  CHECK(variation_of({}, slopes) == 0);
}

TEST_CASE("its slopes agree with finite differences") {
  std::vector<double> x{0.4, 1.5, -0.3, 2}, slopes, ignored;
  variation_of(x, slopes);
  const std::vector<double> found = slopes;
  CHECK(support::gradient_error(x, found, [&] { return variation_of(x, ignored); }) < 1e-8);
}
