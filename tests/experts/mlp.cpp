// SPDX-License-Identifier: MIT
#include <hmoe/experts/mlp.hpp>

#include "experts/bank_checks.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace experts = hmoe::experts;
using experts::biases;
using experts::mlp_bank;
using hmoe::matrix;

namespace {

const std::vector<std::size_t> ragged{5, 1, 12, 2};

// W_o act(W_i x + b_i) + b_o, row by row, unit by unit, over tensors found by their names.
template <class Activation>
matrix<double> plain_mlp(const std::map<std::string, matrix<double>>& w, const matrix<double>& x) {
  const matrix<double>&up = w.at("up"), &down = w.at("down");
  const bool biased = w.contains("up_bias");
  matrix<double> y(x.rows(), x.cols());
  for (std::size_t t = 0; t < x.rows(); ++t) {
    if (biased)
      for (std::size_t i = 0; i < x.cols(); ++i)
        y(t, i) = w.at("down_bias")(0, i);
    for (std::size_t unit = 0; unit < up.rows(); ++unit) {
      double z = biased ? w.at("up_bias")(0, unit) : 0;
      for (std::size_t i = 0; i < x.cols(); ++i)
        z += up(unit, i) * x(t, i);
      for (std::size_t i = 0; i < x.cols(); ++i)
        y(t, i) += down(i, unit) * Activation::value(z);
    }
  }
  return y;
}

} // namespace

TEST_CASE_TEMPLATE("MLP experts of any width compute their formula", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu, experts::linear) {
  static_assert(hmoe::expert_bank<mlp_bank<float, Activation>>);
  support::random_source random(71);
  for (const biases bias : {biases::none, biases::all})
    for (const std::size_t d : {1U, 5U, 12U}) {
      mlp_bank<double, Activation> bank(d, ragged, bias);
      bank_checks::randomize(bank, random);
      for (std::size_t e = 0; e < ragged.size(); ++e)
        for (const std::size_t rows : {0U, 1U, 6U}) {
          const auto x = support::random_matrix<double>(random, rows, d);
          const auto expected = plain_mlp<Activation>(bank_checks::tensors_of(bank, e), x);
          CHECK(support::largest_difference(bank_checks::forward(bank, e, x).view(), expected.view()) < 1e-12);
        }
    }
}

TEST_CASE_TEMPLATE("gradients of MLP experts agree with central differences", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu, experts::linear) {
  support::random_source random(72);
  for (const biases bias : {biases::none, biases::all})
    for (std::size_t e = 0; e < ragged.size(); ++e)
      for (const std::size_t rows : {0U, 1U, 3U})
        CHECK(bank_checks::gradient_error(mlp_bank<double, Activation>(4, ragged, bias), e, rows, random) < 1e-6);
}

TEST_CASE("an MLP with two units by hand") {
  mlp_bank<float, experts::relu> bank(2, {2}, biases::all);
  const float values[][4] = {{1, -1, 2, 0}, {1, 2, 3, 4}, {0.5F, -3}, {10, 20}}; // up, down, up_bias, down_bias
  std::size_t next = 0;
  bank.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<float> view) {
    std::copy_n(values[next++], view.size(), view.data());
  });
  matrix<float> x(1, 2);
  x(0, 0) = 1;
  x(0, 1) = -2;
  const auto y = bank_checks::forward(bank, 0, x); // z = (1 + 2 + 0.5, 2 − 3) → (3.5, 0); y = (3.5 + 10, 10.5 + 20)
  CHECK(y(0, 0) == 13.5F);
  CHECK(y(0, 1) == 30.5F);
}

TEST_CASE("tensors, counts and saved activations of an MLP") {
  mlp_bank<float, experts::gelu> bank(4, {3, 1}, biases::all);
  CHECK(bank_checks::signature(bank) ==
        std::vector<std::string>{"0 up 3x4 decay", "0 down 4x3 decay", "0 up_bias 1x3", "0 down_bias 1x4",
                                 "1 up 1x4 decay", "1 down 4x1 decay", "1 up_bias 1x1", "1 down_bias 1x4"});
  CHECK(bank.parameter_count(0) == 2 * 4 * 3 + 3 + 4);
  CHECK(bank.parameter_count(1) == 2 * 4 + 1 + 4);
  CHECK(bank.flops_per_row(0) == 48.0);
  CHECK(mlp_bank<float, experts::gelu>(512, {2048}).parameter_count(0) == 2097152);
  CHECK(bank.up(1).rows() == 1);
  CHECK(bank.down(0).cols() == 3);
}

TEST_CASE("fresh narrow and wide experts have the same output variance") {
  support::random_source random(73);
  const mlp_bank<double, experts::gelu> bank(32, {4, 16, 64, 256}, biases::all);
  for (const double variance : bank_checks::output_variances(bank, {}, random))
    CHECK(variance == doctest::Approx(0.4252).epsilon(0.25)); // E[gelu(z)²] for z ~ N(0, 1)
}
