// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/constant.hpp>

#include "experts/bank_checks.hpp"
#include "support/no_products.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

using hmoe::matrix;
using hmoe::experts::constant_bank;

TEST_CASE("a constant expert mixes the token with its learned vector") {
  support::random_source random(5);
  constant_bank<double> bank(6, 3);
  bank_checks::randomize(bank, random);
  const auto x = support::random_matrix<double>(random, 9, 6, 2);
  for (std::size_t e = 0; e < 3; ++e) {
    const auto w = bank_checks::tensors_of(bank, e);
    matrix<double> y(9, 6), saved(9, 2);
    bank.forward(support::no_products{}, e, x.view(), y.view(), saved.view());
    for (std::size_t t = 0; t < 9; ++t) {
      double z[2] = {0, 0}; // the two logits, then softmax as it is written
      for (std::size_t j = 0; j < 2; ++j)
        for (std::size_t i = 0; i < 6; ++i)
          z[j] += w.at("mix")(j, i) * x(t, i);
      const double sum = std::exp(z[0]) + std::exp(z[1]);
      for (std::size_t i = 0; i < 6; ++i)
        CHECK(y(t, i) == doctest::Approx(std::exp(z[0]) / sum * x(t, i) + std::exp(z[1]) / sum * w.at("constant")(0, i))
                             .epsilon(1e-13));
    }
  }
}

TEST_CASE("a constant expert with decided logits is the identity, or its vector") {
  constant_bank<float> bank(2);
  bank.constant(0)[0] = 3;
  bank.constant(0)[1] = -4;
  matrix<float> x(1, 2), y(1, 2), saved(1, 2);
  x(0, 0) = 1;
  x(0, 1) = 2;
  for (const float logit : {1e4F, 1e30F}) { // e^logit itself would overflow
    bank.mix(0)(0, 0) = logit;
    bank.mix(0)(1, 0) = 0;
    bank.forward(support::no_products{}, 0, x.view(), y.view(), saved.view());
    CHECK(y(0, 0) == 1);
    CHECK(y(0, 1) == 2);
    bank.mix(0)(0, 0) = -logit;
    bank.forward(support::no_products{}, 0, x.view(), y.view(), saved.view());
    CHECK(y(0, 0) == 3);
    CHECK(y(0, 1) == -4);
  }
}

TEST_CASE("gradients of constant experts agree with finite differences") {
  support::random_source random(6);
  for (const std::size_t d : {1U, 4U, 7U})
    for (std::size_t e = 0; e < 2; ++e)
      CHECK(bank_checks::gradient_error(constant_bank<double>(d, 2), e, 5, random) <= 1e-6);
}

TEST_CASE("constant_bank names its tensors") {
  constant_bank<float> bank(4, 2);
  CHECK(bank_checks::signature(bank) ==
        std::vector<std::string>{"0 mix 2x4 decay", "0 constant 1x4", "1 mix 2x4 decay", "1 constant 1x4"});
  CHECK(bank.parameter_count(0) == 12);
  CHECK(bank.width(0) == 0);
}

TEST_CASE("constant experts start with vectors of the gain of other kinds' outputs") {
  constant_bank<double> bank(5000);
  bank.initialize(hmoe::seed{8}, 0, {.output_gain = 0.5});
  double square = 0, mix = 0;
  for (const double v : bank.constant(0))
    square += v * v / 5000;
  for (const double w : bank.mix(0).row(1))
    mix += w * w;
  CHECK(std::sqrt(square) == doctest::Approx(0.5).epsilon(0.05));
  CHECK(std::sqrt(mix) == doctest::Approx(1).epsilon(0.05));
}

TEST_CASE("constant_bank refuses empty shapes") {
  CHECK_THROWS_WITH_AS((constant_bank<float>(0)), "hmoe: an expert bank needs d_model >= 1", hmoe::error);
  CHECK_THROWS_WITH_AS((constant_bank<float>(4, 0)), "hmoe: an expert bank needs at least one expert", hmoe::error);
}

TEST_CASE(
    "constant experts on the caller's tensors: the same values, drawn in place; copies have tensors of their own") {
  support::random_source random(34);
  const std::size_t d = 5;
  constant_bank<double> own(d, 2);
  own.initialize(hmoe::seed{4}, 7, {});
  hmoe::matrix<double> memory(6, 9); // rows lie apart
  const auto rows = [&](std::size_t first, std::size_t count) {
    return memory.view().row_block(first, count).column_block(1, d);
  };
  std::vector<hmoe::experts::constant_tensors<double>> tensors{{rows(0, 2), rows(2, 1)}, {rows(3, 2), rows(5, 1)}};
  constant_bank<double> theirs(tensors);
  theirs.initialize(hmoe::seed{4}, 7, {});
  const auto x = support::random_matrix<double>(random, 3, d);
  const constant_bank<double> copy = theirs;
  for (std::size_t e = 0; e < own.size(); ++e) {
    CHECK(support::largest_difference(bank_checks::forward(theirs, e, x).view(),
                                      bank_checks::forward(own, e, x).view()) == 0);
    CHECK(support::largest_difference(bank_checks::forward(copy, e, x).view(),
                                      bank_checks::forward(own, e, x).view()) == 0);
  }
  theirs.constant(1)[3] = 77;
  CHECK(memory(5, 4) == 77);
  CHECK(copy.constant(1)[3] == own.constant(1)[3]);
  tensors[1].constant = rows(5, 1).column_block(0, d - 1);
  CHECK_THROWS_WITH_AS(constant_bank<double>{tensors},
                       "hmoe: constant expert 1: mix is 2 x 5 and constant 1 x 4, needed are 2 x 5 and 1 x 5",
                       hmoe::error);
}

TEST_CASE("constant experts in memory that may only be read are read, and nothing else") {
  constant_bank<float> own(3, 2);
  own.initialize(hmoe::seed{4}, 7, {});
  std::vector<hmoe::experts::constant_tensors<const float>> tensors;
  for (std::size_t e = 0; e < own.size(); ++e)
    tensors.push_back({own.mix(e), hmoe::matrix_view<const float>(own.constant(e).data(), 1, 3)});
  constant_bank<float> bank(tensors);
  CHECK(std::as_const(bank).mix(1).data() == own.mix(1).data());
  CHECK(std::as_const(bank).constant(1).data() == own.constant(1).data());
  for (const auto& change : std::vector<std::function<void()>>{
           [&] { static_cast<void>(bank.mix(0)); },
           [&] { static_cast<void>(bank.constant(0)); },
           [&] { bank.initialize(hmoe::seed{1}, 0, {}); },
           [&] { bank.visit_parameters([](const hmoe::parameter_info&, hmoe::matrix_view<float>) {}); },
       })
    CHECK_THROWS_WITH_AS(
        change(), "hmoe: the weights of this bank are in memory that it may only read: copy the bank to change them",
        hmoe::error);
  constant_bank<float> copy = bank;
  copy.constant(1)[0] += 1;
  CHECK(copy.constant(1)[0] == own.constant(1)[0] + 1);
  std::size_t values = 0;
  std::as_const(bank).visit_parameters(
      [&](const hmoe::parameter_info&, hmoe::matrix_view<const float> view) { values += view.size(); });
  CHECK(values == 2 * bank.parameter_count(0));
}
