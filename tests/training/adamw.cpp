// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/training/adamw.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using hmoe::parameter;
using hmoe::training::adamw;
using hmoe::training::adamw_options;

namespace {

// One tensor with its gradient.
template <class T> struct tensor {
  std::vector<T> value, gradient;
  explicit tensor(std::vector<T> start) : value(std::move(start)), gradient(value.size()) {}
  parameter<T> as_parameter(bool decay = true, std::string name = "w") {
    return {std::move(name), value, gradient, decay};
  }
};

// Algorithm 2 of the paper for one number, in the order of its lines; η_t = 1, α = rate, λ' = rate · decay as PyTorch
// has it (torch.optim.AdamW: "θ ← θ − γλθ" first, then the moments and "θ ← θ − γ m̂/(√v̂ + ε)").
struct scalar_adamw {
  double theta, beta1, beta2, epsilon, decay;
  double m = 0, v = 0;
  int t = 0;
  void step(double g, double rate) {
    ++t;
    theta = theta - rate * decay * theta;
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double m_hat = m / (1 - std::pow(beta1, t));
    const double v_hat = v / (1 - std::pow(beta2, t));
    theta = theta - rate * m_hat / (std::sqrt(v_hat) + epsilon);
  }
};

} // namespace

TEST_CASE("three steps worked by hand") {
  // β₁ = ½, β₂ = ¾, ε tiny, λ = ½, η = 0.1, θ₀ = 2, gradients 4, 0, −4:
  //  1: m 2, m̂ 4; v 4, v̂ 16;                    θ = 2·0.95 − 0.1·4/4
  //  2: m 1, m̂ 1/0.75; v 3, v̂ 3/0.4375;         θ = θ·0.95 − 0.1·(1/0.75)/√(3/0.4375)
  //  3: m −1.5, m̂ −1.5/0.875; v 6.25, v̂ 6.25/0.578125
  tensor<double> w({2.0});
  const std::vector list{w.as_parameter()};
  adamw optimizer(adamw_options{.beta1 = 0.5, .beta2 = 0.75, .epsilon = 1e-30, .weight_decay = 0.5}, list);
  CHECK(optimizer.steps() == 0);
  w.gradient = {4};
  optimizer.step(list, 0.1);
  CHECK(w.value[0] == doctest::Approx(1.8).epsilon(1e-14));
  CHECK(optimizer.first_moment(0)[0] == 2);
  CHECK(optimizer.second_moment(0)[0] == 4);
  w.gradient = {0};
  optimizer.step(list, 0.1);
  CHECK(w.value[0] == doctest::Approx(1.71 - 0.1 / 0.75 * std::sqrt(0.4375 / 3)).epsilon(1e-14));
  CHECK(w.value[0] == doctest::Approx(1.659082492278).epsilon(1e-10));
  const double second = w.value[0];
  w.gradient = {-4};
  optimizer.step(list, 0.1);
  CHECK(optimizer.first_moment(0)[0] == -1.5);
  CHECK(optimizer.second_moment(0)[0] == 6.25);
  CHECK(w.value[0] ==
        doctest::Approx(0.95 * second + 0.1 * (1.5 / 0.875) / (2.5 / std::sqrt(0.578125))).epsilon(1e-14));
  CHECK(optimizer.steps() == 3);
}

TEST_CASE_TEMPLATE("many tensors and steps against the algorithm for one number", T, float, double) {
  const double tolerance = std::same_as<T, float> ? 2e-5 : 1e-12;
  support::random_source random(41);
  const adamw_options options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
  std::vector<tensor<T>> tensors;
  std::vector<std::vector<scalar_adamw>> expected;
  for (std::size_t i = 0; i < 5; ++i) {
    const bool decay = i % 2 == 0;
    std::vector<T> start(random.size(0, 12));
    std::vector<scalar_adamw> scalars;
    for (T& value : start) {
      value = static_cast<T>(random.real(-2, 2));
      scalars.push_back({static_cast<double>(value), 0.9, 0.95, 1e-8, decay ? 0.1 : 0.0});
    }
    tensors.emplace_back(start);
    expected.push_back(scalars);
  }
  std::vector<parameter<T>> list;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    list.push_back(tensors[i].as_parameter(i % 2 == 0));
  adamw<T> optimizer(options, list);
  double largest = 0;
  for (int step = 0; step < 60; ++step) {
    const double rate = 0.01 * (1 + step % 7);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      for (std::size_t j = 0; j < tensors[i].value.size(); ++j) {
        tensors[i].gradient[j] = static_cast<T>(random.real(-1, 1) * std::pow(10, random.real(-3, 3)));
        expected[i][j].step(static_cast<double>(tensors[i].gradient[j]), rate);
      }
    optimizer.step(list, rate);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      for (std::size_t j = 0; j < tensors[i].value.size(); ++j)
        largest = std::max(largest, std::abs(static_cast<double>(tensors[i].value[j]) - expected[i][j].theta));
  }
  CHECK(largest < tolerance);
}

TEST_CASE("the first step has the size of the learning rate, whatever the size of the gradient") {
  for (const double size : {1e-3, 1.0, 1e6}) {
    tensor<double> w({0.0, 0.0});
    const std::vector list{w.as_parameter()};
    adamw optimizer(adamw_options{}, list);
    w.gradient = {size, -size};
    optimizer.step(list, 0.25);
    CHECK(w.value[0] == doctest::Approx(-0.25).epsilon(2e-5));
    CHECK(w.value[1] == doctest::Approx(0.25).epsilon(2e-5));
  }
}

TEST_CASE("decay is decoupled: it shrinks by η·λ without a gradient, and only where it is asked for") {
  tensor<double> matrix({4.0}), bias({4.0});
  const std::vector list{matrix.as_parameter(true), bias.as_parameter(false)};
  adamw optimizer(adamw_options{.weight_decay = 0.5}, list);
  for (int i = 0; i < 2; ++i)
    optimizer.step(list, 0.1);
  CHECK(matrix.value[0] == doctest::Approx(4 * 0.95 * 0.95).epsilon(1e-15));
  CHECK(bias.value[0] == 4);
  CHECK(optimizer.second_moment(0)[0] == 0); // λθ is no gradient
}

TEST_CASE("state that is written back continues with the same bits") {
  const auto run = [](bool interrupted) {
    tensor<float> w({1.0F, -2.0F, 0.5F});
    const std::vector list{w.as_parameter()};
    adamw<float> first(adamw_options{}, list), second(adamw_options{}, list);
    for (int i = 0; i < 6; ++i) {
      for (std::size_t j = 0; j < 3; ++j)
        w.gradient[j] = std::sin(static_cast<float>(3 * i) + static_cast<float>(j));
      if (interrupted && i == 3) {
        second.set_steps(first.steps());
        std::ranges::copy(first.first_moment(0), second.first_moment(0).begin());
        std::ranges::copy(first.second_moment(0), second.second_moment(0).begin());
      }
      (interrupted && i >= 3 ? second : first).step(list, 0.01);
    }
    return w.value;
  };
  CHECK(run(false) == run(true));
}

TEST_CASE("a context's threads change no bit, of short tensors and of those that several share") {
  const auto run = [](const auto& step) {
    std::vector<tensor<float>> tensors;
    for (const std::size_t size : {std::size_t{0}, std::size_t{5}, 2 * hmoe::training::adamw_values_per_task + 77}) {
      std::vector<float> start(size);
      for (std::size_t i = 0; i < size; ++i)
        start[i] = std::sin(static_cast<float>(i));
      tensors.emplace_back(start);
    }
    std::vector<parameter<float>> list;
    for (tensor<float>& one : tensors)
      list.push_back(one.as_parameter());
    adamw<float> optimizer(adamw_options{}, list);
    for (int i = 1; i <= 3; ++i) {
      for (tensor<float>& one : tensors)
        for (std::size_t j = 0; j < one.gradient.size(); ++j)
          one.gradient[j] = std::cos(static_cast<float>(i) * static_cast<float>(j));
      step(optimizer, list);
    }
    return std::vector{tensors[1].value, tensors[2].value};
  };
  const auto alone = run([](auto& optimizer, const auto& list) { optimizer.step(list, 0.1); });
  for (const std::size_t j : {std::size_t{0}, hmoe::training::adamw_values_per_task, alone[1].size() - 1}) {
    const adamw_options options;
    scalar_adamw expected{static_cast<double>(std::sin(static_cast<float>(j))), options.beta1, options.beta2,
                          options.epsilon, options.weight_decay};
    for (int i = 1; i <= 3; ++i)
      expected.step(static_cast<double>(std::cos(static_cast<float>(i) * static_cast<float>(j))), 0.1);
    CHECK(static_cast<double>(alone[1][j]) == doctest::Approx(expected.theta).epsilon(1e-4));
  }
  for (const std::size_t threads : {1U, 2U, 3U}) {
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
    CHECK(run([&](auto& optimizer, const auto& list) { optimizer.step(ctx, list, 0.1); }) == alone);
  }
}

TEST_CASE("wrong options and lists are refused with their numbers, before anything changes") {
  tensor<double> a({1, 2}), b({3});
  const std::vector list{a.as_parameter(true, "a"), b.as_parameter(true, "b")};
  CHECK_THROWS_WITH_AS(adamw(adamw_options{.beta1 = 1.0}, list),
                       "hmoe: AdamW needs betas in [0, 1), given are 1 and 0.999", hmoe::error);
  CHECK_THROWS_AS(adamw(adamw_options{.beta2 = -0.1}, list), hmoe::error);
  CHECK_THROWS_AS(adamw(adamw_options{.beta1 = std::numeric_limits<double>::quiet_NaN()}, list), hmoe::error);
  CHECK_THROWS_WITH_AS(adamw(adamw_options{.epsilon = 0}, list), "hmoe: AdamW needs epsilon > 0, given is 0",
                       hmoe::error);
  CHECK_THROWS_WITH_AS(adamw(adamw_options{.weight_decay = -0.1}, list),
                       "hmoe: AdamW needs a finite weight_decay >= 0, given is -0.1", hmoe::error);

  adamw optimizer(adamw_options{}, list);
  a.gradient = {1, 1};
  CHECK_THROWS_WITH_AS(optimizer.step(list, std::nan("")), "hmoe: AdamW with a learning rate of nan: it must be finite",
                       hmoe::error);
  b.gradient = {1};
  CHECK_THROWS_WITH_AS(optimizer.step({list[0]}, 0.1), "hmoe: AdamW was made for 2 tensors, given are 1", hmoe::error);
  tensor<double> wide({1, 2, 3});
  CHECK_THROWS_WITH_AS(optimizer.step({list[0], wide.as_parameter(true, "b")}, 0.1),
                       "hmoe: AdamW: tensor b has 3 values and 3 gradient values instead of 1", hmoe::error);
  parameter<double> without_gradient = list[1];
  without_gradient.gradient = {};
  CHECK_THROWS_AS(optimizer.step({list[0], without_gradient}, 0.1), hmoe::error);
  CHECK_THROWS_WITH_AS(adamw(adamw_options{}, std::vector{without_gradient}),
                       "hmoe: parameter b has 1 values and 0 gradient values", hmoe::error);
  CHECK(a.value == std::vector<double>{1, 2});
  CHECK(optimizer.steps() == 0);
}

TEST_CASE("the state of a tensor by name, and of another size") {
  std::vector<float> value{1, 2, 3}, gradient{1, 1, 1};
  const std::vector<hmoe::parameter<float>> list{
      {.name = "a", .value = value, .gradient = gradient, .rows = 1, .cols = 3}};
  hmoe::training::adamw<float> optimizer{{}, list};
  optimizer.step(list, 0.1);
  std::vector<std::string> names;
  const auto visit = [&](std::size_t size, bool zero) {
    optimizer.visit_state(0, [&](std::string_view name, std::span<float> state) {
      names.emplace_back(name);
      CHECK(state.size() == size);
      for (const float s : state)
        CHECK((s == 0) == zero);
    });
  };
  visit(3, false);
  CHECK(names == std::vector<std::string>{"first_moment", "second_moment"});
  optimizer.resize_state(0, 3); // changes nothing
  visit(3, false);
  optimizer.resize_state(0, 5);
  visit(5, true);
}
