// SPDX-License-Identifier: MIT
#include <hmoe/training/sgd.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using hmoe::parameter;
using hmoe::training::sgd;
using hmoe::training::sgd_options;

TEST_CASE("plain descent, momentum and decay by hand") {
  std::vector<double> value{2}, gradient{4};
  const std::vector<parameter<double>> list{{"w", value, gradient, true}};
  sgd plain(sgd_options{}, list);
  plain.step(list, 0.25);
  CHECK(value[0] == 1);

  // μ = ½, λ = ¼, η = ½: b 4.25, θ 1 − 2.125; b 2.125 + 4 + ¼·(−1.125), θ …
  sgd heavy(sgd_options{.momentum = 0.5, .weight_decay = 0.25}, list);
  heavy.step(list, 0.5);
  CHECK(heavy.velocity(0)[0] == 4.25);
  CHECK(value[0] == -1.125);
  heavy.step(list, 0.5);
  CHECK(heavy.velocity(0)[0] == 5.84375);
  CHECK(value[0] == -4.046875);
}

TEST_CASE_TEMPLATE("many tensors and steps against the rule for one number", T, float, double) {
  const double tolerance = std::same_as<T, float> ? 1e-4 : 1e-12;
  constexpr double momentum = 0.9, decay = 0.01;
  constexpr std::size_t count = 7;
  support::random_source random(42);
  std::vector<std::vector<T>> values(3, std::vector<T>(count)), gradients = values;
  std::vector<std::vector<double>> theta(3, std::vector<double>(count)), velocity = theta;
  std::vector<parameter<T>> list;
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (std::size_t j = 0; j < count; ++j) {
      values[i][j] = static_cast<T>(random.real());
      theta[i][j] = static_cast<double>(values[i][j]);
    }
    list.push_back({"w", values[i], gradients[i], i != 1});
  }
  sgd<T> optimizer(sgd_options{momentum, decay}, list);
  for (int step = 0; step < 40; ++step) {
    const double rate = 0.1 / (1 + step);
    for (std::size_t i = 0; i < values.size(); ++i)
      for (std::size_t j = 0; j < count; ++j) {
        gradients[i][j] = static_cast<T>(random.real(-3, 3));
        const double pulled = static_cast<double>(gradients[i][j]) + (i == 1 ? 0 : decay * theta[i][j]);
        velocity[i][j] = momentum * velocity[i][j] + pulled;
        theta[i][j] -= rate * velocity[i][j];
      }
    optimizer.step(list, rate);
  }
  for (std::size_t i = 0; i < values.size(); ++i)
    for (std::size_t j = 0; j < count; ++j)
      CHECK(std::abs(static_cast<double>(values[i][j]) - theta[i][j]) < tolerance);
}

TEST_CASE("wrong options and lists are refused with their numbers, before anything changes") {
  std::vector<double> a{1, 2}, b{3}, da{1, 1}, db{1};
  const std::vector<parameter<double>> list{{"a", a, da}, {"b", b, db}};
  CHECK_THROWS_WITH_AS(sgd(sgd_options{.momentum = 1.5}, list), "hmoe: SGD needs a momentum in [0, 1), given is 1.5",
                       hmoe::error);
  CHECK_THROWS_WITH_AS(sgd(sgd_options{.weight_decay = -2}, list),
                       "hmoe: SGD needs a finite weight_decay >= 0, given is -2", hmoe::error);
  sgd optimizer(sgd_options{}, list);
  CHECK_THROWS_AS(optimizer.step(list, std::nan("")), hmoe::error);
  CHECK_THROWS_WITH_AS(optimizer.step({list[1]}, 0.1), "hmoe: SGD was made for 2 tensors, given are 1", hmoe::error);
  CHECK_THROWS_WITH_AS(optimizer.step({list[0], {"b", a, da}}, 0.1),
                       "hmoe: SGD: tensor b has 2 values and 2 gradient values instead of 1", hmoe::error);
  CHECK_THROWS_AS(optimizer.step({list[0], {"b", b, {}}}, 0.1), hmoe::error);
  CHECK(a == std::vector<double>{1, 2});
  CHECK(b == std::vector<double>{3});
}

TEST_CASE("the state of a tensor by name, and of another size") {
  std::vector<float> value{1, 2, 3}, gradient{1, 1, 1};
  const std::vector<hmoe::parameter<float>> list{
      {.name = "a", .value = value, .gradient = gradient, .rows = 1, .cols = 3}};
  hmoe::training::sgd<float> optimizer{{.momentum = 0.5}, list};
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
  CHECK(names == std::vector<std::string>{"velocity"});
  optimizer.resize_state(0, 3); // changes nothing
  visit(3, false);
  optimizer.resize_state(0, 5);
  visit(5, true);
}
