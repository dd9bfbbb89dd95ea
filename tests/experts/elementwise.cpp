// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>

#include "support/no_products.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace hmoe;

namespace {

// Answers with marks that no activation has: shows which functions a bank takes from its backend.
struct marking_backend : backends::reference {
  template <class Activation, class T> static void activate(vector_view<const T> z, vector_view<T> a) {
    for (std::size_t i = 0; i < z.size(); ++i)
      a[i] = T(100);
  }
  template <class Activation, class T> static void activate_backward(vector_view<const T>, vector_view<T> d) {
    for (T& value : d)
      value = 0;
  }
  template <class Gate, class T>
  static void gate(const Gate&, vector_view<const T>, vector_view<const T>, vector_view<T> a) {
    for (T& value : a)
      value = 200;
  }
  template <class Gate, class T>
  static void gate_backward(const Gate&, vector_view<const T>, vector_view<const T>, vector_view<T> dg,
                            vector_view<T> du) {
    for (std::size_t i = 0; i < dg.size(); ++i)
      dg[i] = du[i] = 0;
  }
};

template <class Bank> void check_that_it_asks_the_backend(Bank bank, double mark) {
  bank.initialize(seed{3}, 0, {});
  support::random_source random(4);
  const matrix<double> x = support::random_matrix<double>(random, 3, bank.d_model());
  matrix<double> y(3, bank.d_model()), saved(3, bank.saved_per_row(1)), scratch(3, bank.scratch_per_row(1)),
      dx(3, bank.d_model());
  bank.forward(marking_backend{}, 1, x.view(), y.view(), saved.view());
  const std::size_t h = bank.width(1);
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t i = 0; i < h; ++i)
      CHECK(saved(r, saved.cols() - h + i) == mark);
  Bank gradients = bank;
  bank.backward(marking_backend{}, 1, x.view(), std::as_const(saved).view(), x.view(), dx.view(), scratch.view(),
                gradients);
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t c = 0; c < bank.d_model(); ++c)
      CHECK(dx(r, c) == 0);
}

} // namespace

TEST_CASE("without a backend's own form, elements are computed one by one") {
  const std::vector<double> g{-2, -0.5, 0, 1, 3}, u{1, 2, -3, 4, 0.5};
  std::vector<double> a(5), dg(5), du{1, -1, 2, 0.5, 3};
  const support::no_products none;
  experts::activate<experts::silu>(none, vector_view<const double>(g), vector_view<double>(a));
  for (std::size_t i = 0; i < 5; ++i)
    CHECK(a[i] == experts::silu::value(g[i]));
  experts::activate_backward<experts::silu>(none, vector_view<const double>(g), vector_view<double>(a));
  for (std::size_t i = 0; i < 5; ++i)
    CHECK(a[i] == experts::silu::value(g[i]) * experts::silu::derivative(g[i]));
  const experts::gpt_oss_gate gate;
  experts::apply_gate(none, gate, vector_view<const double>(g), vector_view<const double>(u), vector_view<double>(a));
  const std::vector<double> da = du;
  experts::apply_gate_backward(none, gate, vector_view<const double>(g), vector_view<const double>(u),
                               vector_view<double>(dg), vector_view<double>(du));
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(a[i] == gate.value(g[i], u[i]));
    double expected_dg = 0, expected_du = 0;
    gate.backward(g[i], u[i], da[i], expected_dg, expected_du);
    CHECK(dg[i] == expected_dg);
    CHECK(du[i] == expected_du);
  }
}

TEST_CASE("banks take activations and gates from a backend that has them") {
  check_that_it_asks_the_backend(experts::mlp_bank<double, experts::relu>(4, {2, 5}), 100);
  check_that_it_asks_the_backend(experts::glu_bank<double, experts::silu>(4, {2, 5}), 200);
}
