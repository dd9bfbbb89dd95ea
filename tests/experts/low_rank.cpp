// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/low_rank.hpp>

#include "experts/bank_checks.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using hmoe::matrix;
using hmoe::experts::low_rank_bank;

TEST_CASE("a low-rank expert is x + B A x") {
  support::random_source random(7);
  low_rank_bank<double> bank(5, {1, 3, 8});
  bank_checks::randomize(bank, random);
  const auto x = support::random_matrix<double>(random, 6, 5);
  for (std::size_t e = 0; e < 3; ++e) {
    const auto w = bank_checks::tensors_of(bank, e);
    const auto y = bank_checks::forward(bank, e, x);
    for (std::size_t t = 0; t < 6; ++t)
      for (std::size_t i = 0; i < 5; ++i) {
        double expected = x(t, i);
        for (std::size_t r = 0; r < bank.width(e); ++r)
          for (std::size_t j = 0; j < 5; ++j)
            expected += w.at("b")(i, r) * w.at("a")(r, j) * x(t, j);
        CHECK(y(t, i) == doctest::Approx(expected).epsilon(1e-13));
      }
  }
}

TEST_CASE("with b = 0 a low-rank expert is the identity") {
  support::random_source random(8);
  low_rank_bank<float> bank(4, {2});
  support::fill(random, bank.a(0));
  const auto x = support::random_matrix<float>(random, 3, 4);
  CHECK(support::largest_difference(bank_checks::forward(bank, 0, x).view(), x.view()) == 0);
}

TEST_CASE("gradients of low-rank experts agree with finite differences") {
  support::random_source random(9);
  for (std::size_t e = 0; e < 3; ++e)
    CHECK(bank_checks::gradient_error(low_rank_bank<double>(4, {1, 2, 6}), e, 5, random) <= 1e-6);
}

TEST_CASE("low_rank_bank names its tensors and knows its cost") {
  low_rank_bank<float> bank(4, {2, 1});
  CHECK(bank_checks::signature(bank) ==
        std::vector<std::string>{"0 a 2x4 decay", "0 b 4x2 decay", "1 a 1x4 decay", "1 b 4x1 decay"});
  CHECK(bank.parameter_count(0) == 16);
  CHECK(bank.flops_per_row(0) == 2 * 16 + 4);
}

TEST_CASE("a low_rank expert of rank 0 is the identity") {
  low_rank_bank<double> bank(4, {2, 0});
  support::random_source random(32);
  const auto x = support::random_matrix<double>(random, 3, 4);
  matrix<double> y(3, 4), saved(3, bank.saved_per_row(1));
  bank.forward(hmoe::backends::reference{}, 1, x.view(), y.view(), saved.view());
  for (std::size_t i = 0; i < y.size(); ++i)
    CHECK(y.data()[i] == x.data()[i]);
}

TEST_CASE("low-rank experts on the caller's weights compute the same, and biases are refused") {
  support::random_source random(33);
  low_rank_bank<double> own(4, {2, 3});
  bank_checks::randomize(own, random);
  std::vector<hmoe::experts::ffn_tensors<double, 1>> tensors;
  for (std::size_t e = 0; e < own.size(); ++e)
    tensors.push_back({{own.a(e)}, own.b(e)});
  const low_rank_bank<double> theirs{hmoe::experts::ffn_weights<double, 1>{tensors}};
  const auto x = support::random_matrix<double>(random, 3, 4);
  for (std::size_t e = 0; e < own.size(); ++e)
    CHECK(support::largest_difference(bank_checks::forward(theirs, e, x).view(),
                                      bank_checks::forward(own, e, x).view()) == 0);
  CHECK_THROWS_WITH_AS(low_rank_bank<double>(hmoe::experts::ffn_weights<double, 1>(4, {2}, hmoe::experts::biases::all)),
                       "hmoe: low_rank_bank: the weights have biases, and x + B A x has none", hmoe::error);
}
