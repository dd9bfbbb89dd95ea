// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace bank_checks {

using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::parameter_info;

/// Random values in every tensor, biases included.
template <class Bank> void randomize(Bank& bank, support::random_source& random) {
  bank.visit_parameters([&](const parameter_info&, auto view) { support::fill(random, view); });
}

/// The tensors of one expert by name, as copies.
template <class Bank> std::map<std::string, matrix<double>> tensors_of(Bank bank, std::size_t e) {
  std::map<std::string, matrix<double>> result;
  bank.visit_parameters([&](const parameter_info& info, auto view) {
    if (info.expert != e)
      return;
    matrix<double> copy(view.rows(), view.cols());
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (std::size_t c = 0; c < view.cols(); ++c)
        copy(r, c) = static_cast<double>(view(r, c));
    result[std::string(info.name)] = copy;
  });
  return result;
}

/// "0 gate 3x4 decay", … in the order of the visit.
template <class Bank> std::vector<std::string> signature(Bank& bank) {
  std::vector<std::string> result;
  bank.visit_parameters([&](const parameter_info& info, auto view) {
    result.push_back(std::to_string(info.expert) + ' ' + std::string(info.name) + ' ' + std::to_string(view.rows()) +
                     'x' + std::to_string(view.cols()) + (info.decay ? " decay" : ""));
  });
  return result;
}

template <class Bank, class T = typename Bank::value_type>
matrix<T> forward(const Bank& bank, std::size_t e, const matrix<T>& x) {
  matrix<T> y(x.rows(), x.cols()), saved(x.rows(), bank.saved_per_row(e));
  bank.forward(hmoe::backends::reference{}, e, x, y, saved);
  return y;
}

/// The largest relative error of dx and of every weight and bias of expert e against central differences of
/// Σ dy ⊙ y. Also checks that gradients are added to what is there, and that other experts' stay as they are: any
/// violation of these returns infinity.
template <class Bank>
double gradient_error(Bank bank, std::size_t e, std::size_t rows, support::random_source& random) {
  const hmoe::backends::reference math;
  const std::size_t d = bank.d_model();
  randomize(bank, random);
  auto x = support::random_matrix<double>(random, rows, d);
  const auto dy = support::random_matrix<double>(random, rows, d);
  const auto loss = [&] {
    const auto y = forward(bank, e, x);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      sum += y.data()[i] * dy.data()[i];
    return sum;
  };

  matrix<double> y(rows, d), saved(rows, bank.saved_per_row(e)), scratch(rows, bank.scratch_per_row(e));
  auto dx = support::random_matrix<double>(random, rows, d); // garbage that must not show
  bank.forward(math, e, x, y, saved);
  constexpr double before = 0.5;
  Bank gradients = bank;
  gradients.visit_parameters([=](const parameter_info&, matrix_view<double> view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      std::ranges::fill(view.row(r), before);
  });
  const matrix<double> x_before = x, saved_before = saved, dy_before = dy;
  bank.backward(math, e, x, saved, dy, dx, scratch, gradients);
  if (support::largest_difference(x.view(), x_before.view()) != 0 ||
      support::largest_difference(saved.view(), saved_before.view()) != 0)
    return std::numeric_limits<double>::infinity();

  const auto all = [](auto& m) { return std::span(m.data(), m.size()); };
  double worst = support::gradient_error(all(x), all(dx), loss);
  std::vector<std::vector<double>> analytic;
  gradients.visit_parameters([&](const parameter_info&, matrix_view<double> view) {
    std::vector<double> values(view.data(), view.data() + view.size());
    for (double& value : values)
      value -= before;
    analytic.push_back(values);
  });
  std::size_t next = 0;
  bank.visit_parameters([&](const parameter_info& info, matrix_view<double> view) {
    const auto& claimed = analytic[next++];
    if (info.expert == e)
      worst = std::max(worst, support::gradient_error({view.data(), view.size()}, claimed, loss));
    else if (std::ranges::any_of(claimed, [](double value) { return value != 0; }))
      worst = std::numeric_limits<double>::infinity();
  });
  return worst;
}

/// Mean square of the outputs of expert e for inputs of mean 0 and variance 1.
template <class Bank>
double output_variance(const Bank& bank, std::size_t e, std::size_t rows, support::random_source& random) {
  matrix<double> x(rows, bank.d_model());
  for (std::size_t i = 0; i < x.size(); ++i) { // a sum of twelve uniform values: variance 1
    double sum = 0;
    for (int j = 0; j < 12; ++j)
      sum += random.real(-0.5, 0.5);
    x.data()[i] = sum;
  }
  const auto y = forward(bank, e, x);
  double square = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    square += y.data()[i] * y.data()[i];
  return square / static_cast<double>(y.size());
}

/// The mean over fresh banks of the output variance of each expert.
template <class Bank>
std::vector<double> output_variances(Bank bank, const hmoe::initialization& options, support::random_source& random) {
  constexpr int draws = 40;
  std::vector<double> result(bank.size());
  for (int i = 0; i < draws; ++i) {
    bank.initialize(hmoe::seed{random.bits()}, 0, options);
    for (std::size_t e = 0; e < bank.size(); ++e)
      result[e] += output_variance(bank, e, 20, random) / draws;
  }
  return result;
}

} // namespace bank_checks
