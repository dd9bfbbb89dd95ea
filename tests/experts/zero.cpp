// SPDX-License-Identifier: MIT
#include <hmoe/experts/zero.hpp>

#include "support/no_products.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

using hmoe::matrix;
using hmoe::experts::zero_bank;

TEST_CASE("a zero expert returns zeros, whatever was in the output before") {
  support::random_source random(4);
  const zero_bank<float> bank(5, 2);
  CHECK(bank.size() == 2);
  CHECK(bank.width(0) == 0);
  CHECK(bank.flops_per_row(0) == 0);
  for (const std::size_t rows : {0U, 1U, 9U}) {
    const auto x = support::random_matrix<float>(random, rows, 5), dy = support::random_matrix<float>(random, rows, 5);
    auto y = support::random_matrix<float>(random, rows, 5), dx = support::random_matrix<float>(random, rows, 5);
    const matrix<float> zeros(rows, 5);
    zero_bank<float> gradients = bank;
    bank.forward(support::no_products{}, 0, x.view(), y.view(), {});
    bank.backward(support::no_products{}, 0, x.view(), {}, dy.view(), dx.view(), {}, gradients);
    CHECK(support::largest_difference(y.view(), zeros.view()) == 0);
    CHECK(support::largest_difference(dx.view(), zeros.view()) == 0);
  }
}
