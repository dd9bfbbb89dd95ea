// SPDX-License-Identifier: MIT
#include <hmoe/experts/glu.hpp>

#include "experts/bank_checks.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace experts = hmoe::experts;
using experts::biases;
using experts::glu_bank;
using hmoe::matrix;

namespace {

const std::vector<std::size_t> ragged{1, 7, 3, 16, 2};

// W_o (act(W_g x + b_g) ⊙ (W_p x + b_p)) + b_o, row by row, unit by unit, over tensors found by their names.
template <class Activation>
matrix<double> plain_glu(const std::map<std::string, matrix<double>>& w, const matrix<double>& x) {
  const matrix<double>&gate = w.at("gate"), &up = w.at("up"), &down = w.at("down");
  const bool biased = w.contains("gate_bias");
  matrix<double> y(x.rows(), x.cols());
  for (std::size_t t = 0; t < x.rows(); ++t) {
    if (biased)
      for (std::size_t i = 0; i < x.cols(); ++i)
        y(t, i) = w.at("down_bias")(0, i);
    for (std::size_t unit = 0; unit < gate.rows(); ++unit) {
      double g = biased ? w.at("gate_bias")(0, unit) : 0, p = biased ? w.at("up_bias")(0, unit) : 0;
      for (std::size_t i = 0; i < x.cols(); ++i) {
        g += gate(unit, i) * x(t, i);
        p += up(unit, i) * x(t, i);
      }
      for (std::size_t i = 0; i < x.cols(); ++i)
        y(t, i) += down(i, unit) * Activation::value(g) * p;
    }
  }
  return y;
}

} // namespace

TEST_CASE_TEMPLATE("GLU experts of any width compute their formula", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu, experts::linear) {
  static_assert(hmoe::expert_bank<glu_bank<float, Activation>>);
  support::random_source random(61);
  for (const biases bias : {biases::none, biases::all})
    for (const std::size_t d : {1U, 5U, 12U}) {
      glu_bank<double, Activation> bank(d, ragged, bias);
      glu_bank<float, Activation> narrow(d, ragged, bias);
      bank_checks::randomize(bank, random);
      bank_checks::randomize(narrow, random);
      for (std::size_t e = 0; e < ragged.size(); ++e)
        for (const std::size_t rows : {0U, 1U, 6U}) {
          const auto x = support::random_matrix<double>(random, rows, d);
          const auto expected = plain_glu<Activation>(bank_checks::tensors_of(bank, e), x);
          CHECK(support::largest_difference(bank_checks::forward(bank, e, x).view(), expected.view()) < 1e-12);

          const auto x_narrow = support::random_matrix<float>(random, rows, d);
          matrix<double> x_wide(rows, d);
          std::copy_n(x_narrow.data(), x_wide.size(), x_wide.data());
          const auto expected_narrow = plain_glu<Activation>(bank_checks::tensors_of(narrow, e), x_wide);
          CHECK(support::largest_difference(bank_checks::forward(narrow, e, x_narrow).view(), expected_narrow.view()) <
                2e-4);
        }
    }
}

TEST_CASE_TEMPLATE("gradients of GLU experts agree with central differences", Activation, experts::silu, experts::gelu,
                   experts::gelu_tanh, experts::relu, experts::squared_relu, experts::linear) {
  support::random_source random(62);
  for (const biases bias : {biases::none, biases::all})
    for (std::size_t e = 0; e < ragged.size(); ++e)
      for (const std::size_t rows : {0U, 1U, 3U})
        CHECK(bank_checks::gradient_error(glu_bank<double, Activation>(4, ragged, bias), e, rows, random) < 1e-6);
}

TEST_CASE("strided inputs, outputs and activations give the same bits") {
  support::random_source random(63);
  glu_bank<float, experts::silu> bank(6, ragged, biases::all);
  bank_checks::randomize(bank, random);
  constexpr std::size_t e = 1, rows = 4;
  const std::size_t saved_cols = bank.saved_per_row(e), scratch_cols = bank.scratch_per_row(e);
  const auto x = support::random_matrix<float>(random, rows, 6), dy = support::random_matrix<float>(random, rows, 6);
  matrix<float> y(rows, 6), dx(rows, 6), saved(rows, saved_cols), scratch(rows, scratch_cols);
  auto gradients = bank;
  hmoe::set_zero(gradients);
  auto strided_gradients = gradients;
  const hmoe::backends::reference math;
  bank.forward(math, e, x, y, saved);
  bank.backward(math, e, x, saved, dy, dx, scratch, gradients);

  matrix<float> wide_x(rows, 9), wide_dy(rows, 11), wide_y(rows, 8), wide_dx(rows, 13);
  matrix<float> wide_saved(rows, saved_cols + 5), wide_scratch(rows, scratch_cols + 1);
  const auto inner = [](matrix<float>& m, std::size_t cols) { return m.view().column_block(1, cols); };
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < 6; ++c) {
      inner(wide_x, 6)(r, c) = x(r, c);
      inner(wide_dy, 6)(r, c) = dy(r, c);
    }
  bank.forward(math, e, inner(wide_x, 6), inner(wide_y, 6), inner(wide_saved, saved_cols));
  bank.backward(math, e, inner(wide_x, 6), inner(wide_saved, saved_cols), inner(wide_dy, 6), inner(wide_dx, 6),
                inner(wide_scratch, scratch_cols), strided_gradients);
  CHECK(support::largest_difference(y.view(), inner(wide_y, 6)) == 0);
  CHECK(support::largest_difference(dx.view(), inner(wide_dx, 6)) == 0);
  CHECK(wide_y(0, 0) == 0);
  CHECK(wide_y(rows - 1, 7) == 0);
  const auto a = bank_checks::tensors_of(gradients, e), b = bank_checks::tensors_of(strided_gradients, e);
  for (const auto& [name, tensor] : a)
    CHECK(support::largest_difference(tensor.view(), b.at(name).view()) == 0);
}

TEST_CASE("tensors by name, shape and decay, expert after expert") {
  glu_bank<float, experts::silu> plain(4, {3, 1});
  CHECK(bank_checks::signature(plain) == std::vector<std::string>{"0 gate 3x4 decay", "0 up 3x4 decay",
                                                                  "0 down 4x3 decay", "1 gate 1x4 decay",
                                                                  "1 up 1x4 decay", "1 down 4x1 decay"});
  glu_bank<float, experts::silu> biased(4, {3}, biases::all);
  CHECK(bank_checks::signature(biased) == std::vector<std::string>{"0 gate 3x4 decay", "0 up 3x4 decay",
                                                                   "0 down 4x3 decay", "0 gate_bias 1x3",
                                                                   "0 up_bias 1x3", "0 down_bias 1x4"});

  // The accessors show the same memory as the visit.
  std::vector<const float*> visited;
  plain.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<float> view) {
    if (info.expert == 1)
      visited.push_back(view.data());
  });
  CHECK(visited == std::vector<const float*>{plain.gate(1).data(), plain.up(1).data(), plain.down(1).data()});
}

TEST_CASE("counts by hand") {
  const glu_bank<float, experts::silu> plain(768, {864, 1});
  CHECK(plain.size() == 2);
  CHECK(plain.d_model() == 768);
  CHECK(plain.width(0) == 864);
  CHECK(plain.parameter_count(0) == 1990656); // 3 · 768 · 864
  CHECK(plain.flops_per_row(0) == 3981312.0); // two per weight
  CHECK(plain.saved_per_row(0) == 3 * 864);   // gate, up, and their product after the activation
  CHECK(plain.scratch_per_row(0) == 2 * 864); // the gradients of gate and up
  CHECK(plain.parameter_count(1) == 2304);
  const glu_bank<float, experts::silu> biased(10, {4}, biases::all);
  CHECK(biased.parameter_count(0) == 3 * 10 * 4 + 4 + 4 + 10);

  std::size_t visited = 0;
  glu_bank<float, experts::silu> copy = biased;
  copy.visit_parameters([&](const hmoe::parameter_info&, auto view) { visited += view.size(); });
  CHECK(visited == biased.parameter_count(0));
}

TEST_CASE("fresh weights: standard deviations, zero biases, the same for the same seed only") {
  constexpr std::size_t d = 200;
  glu_bank<double, experts::silu> bank(d, {300, 20}, biases::all);
  bank.initialize(hmoe::seed{5}, 0, {.output_gain = 0.5});
  for (std::size_t e = 0; e < 2; ++e) {
    const auto stddev = [&](const std::string& name) {
      const auto m = bank_checks::tensors_of(bank, e).at(name);
      double square = 0;
      for (std::size_t i = 0; i < m.size(); ++i)
        square += m.data()[i] * m.data()[i];
      return std::sqrt(square / static_cast<double>(m.size()));
    };
    // n values estimate the deviation to 1/√(2n) of itself; n ≥ 4000: five standard errors are below 6 %.
    CHECK(stddev("gate") == doctest::Approx(1 / std::sqrt(200.0)).epsilon(0.06));
    CHECK(stddev("up") == doctest::Approx(1 / std::sqrt(200.0)).epsilon(0.06));
    CHECK(stddev("down") == doctest::Approx(0.5 / std::sqrt(e == 0 ? 300.0 : 20.0)).epsilon(0.06));
    for (const char* name : {"gate_bias", "up_bias", "down_bias"})
      CHECK(stddev(name) == 0);
  }
  CHECK(bank.gate(0)(0, 0) != bank.up(0)(0, 0));
  CHECK(bank.gate(0)(0, 0) != bank.gate(1)(0, 0));

  const auto same = [&](std::uint64_t seed, std::uint64_t stream) {
    glu_bank<double, experts::silu> other(d, {300, 20}, biases::all);
    other.initialize(hmoe::seed{seed}, stream, {.output_gain = 0.5});
    return std::memcmp(other.gate(0).data(), bank.gate(0).data(), 300 * d * sizeof(double)) == 0 &&
           std::memcmp(other.down(1).data(), bank.down(1).data(), 20 * d * sizeof(double)) == 0;
  };
  CHECK(same(5, 0));
  CHECK(!same(6, 0));
  CHECK(!same(5, 16));
}

TEST_CASE("fresh narrow and wide experts have the same output variance") {
  support::random_source random(64);
  const glu_bank<double, experts::silu> bank(32, {4, 16, 64, 256});
  // E[silu(g)² u²] for g, u ~ N(0, 1) is E[silu(g)²] = 0.35573; the gain enters squared.
  for (const double gain : {1.0, 0.5})
    for (const double variance : bank_checks::output_variances(bank, {.output_gain = gain}, random))
      CHECK(variance == doctest::Approx(0.3557 * gain * gain).epsilon(0.25));
}

TEST_CASE("banks without experts or rows, and sizes beyond memory, are refused") {
  using bank = glu_bank<float, experts::silu>;
  CHECK_THROWS_WITH_AS(bank(4, {}), "hmoe: an expert bank needs at least one expert", hmoe::error);
  CHECK_THROWS_WITH_AS(bank(0, {3}), "hmoe: an expert bank needs d_model >= 1", hmoe::error);
  CHECK_THROWS_AS(bank(4, {std::numeric_limits<std::size_t>::max() / 8}), hmoe::error);
}

TEST_CASE("an expert of width 0 returns its bias, or zero, and passes no gradient on but that of the bias") {
  for (const experts::biases bias : {experts::biases::none, experts::biases::all}) {
    glu_bank<double, experts::silu> bank(4, {3, 0, 2}, bias);
    bank.initialize(hmoe::seed{1}, 0, {});
    support::random_source random(31);
    bank_checks::randomize(bank, random);
    CHECK(bank.parameter_count(1) == (bias == experts::biases::all ? 4 : 0));
    CHECK(bank.flops_per_row(1) == 0);
    const auto x = support::random_matrix<double>(random, 5, 4), dy = support::random_matrix<double>(random, 5, 4);
    matrix<double> y(5, 4), dx(5, 4), saved(5, 0), scratch(5, 0);
    support::fill(random, y.view());
    support::fill(random, dx.view());
    auto gradients = bank;
    hmoe::set_zero(gradients);
    bank.forward(hmoe::backends::reference{}, 1, x.view(), y.view(), saved.view());
    bank.backward(hmoe::backends::reference{}, 1, x.view(), std::as_const(saved).view(), dy.view(), dx.view(),
                  scratch.view(), gradients);
    const auto bias_of = [](const auto& from, std::size_t c) {
      const auto& weights = from.weights();
      return weights.has_biases() ? weights.output_bias(1)(0, c) : 0.0;
    };
    for (std::size_t c = 0; c < 4; ++c) {
      double sum = 0;
      for (std::size_t r = 0; r < 5; ++r) {
        CHECK(y(r, c) == bias_of(std::as_const(bank), c));
        CHECK(dx(r, c) == 0);
        sum += dy(r, c);
      }
      if (bias == experts::biases::all)
        CHECK(bias_of(std::as_const(gradients), c) == doctest::Approx(sum));
    }
  }
}
