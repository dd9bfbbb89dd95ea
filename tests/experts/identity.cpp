// SPDX-License-Identifier: MIT
#include <hmoe/experts/identity.hpp>

#include "support/no_products.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <string>

using hmoe::matrix;
using hmoe::experts::identity_bank;

TEST_CASE("an identity expert returns the token, and the gradient on the way back") {
  support::random_source random(3);
  const identity_bank<float> bank(5, 2);
  CHECK(bank.size() == 2);
  CHECK(bank.d_model() == 5);
  CHECK(bank.width(1) == 0);
  CHECK(bank.parameter_count(1) == 0);
  CHECK(bank.flops_per_row(1) == 0);
  for (const std::size_t rows : {0U, 1U, 9U}) {
    const auto x = support::random_matrix<float>(random, rows, 5), dy = support::random_matrix<float>(random, rows, 5);
    auto y = support::random_matrix<float>(random, rows, 5), dx = support::random_matrix<float>(random, rows, 5);
    identity_bank<float> gradients = bank;
    bank.forward(support::no_products{}, 1, x.view(), y.view(), {});
    bank.backward(support::no_products{}, 1, x.view(), {}, dy.view(), dx.view(), {}, gradients);
    CHECK(support::largest_difference(y.view(), x.view()) == 0);
    CHECK(support::largest_difference(dx.view(), dy.view()) == 0);
  }
}
