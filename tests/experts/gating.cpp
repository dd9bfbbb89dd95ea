// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/gating.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace hmoe::experts;

namespace {

// The larger error of both slopes against central differences.
template <class Gate> double slope_error(const Gate& gate, double g, double u) {
  const double da = 0.7;
  double dg = 0, du = 0;
  gate.backward(g, u, da, dg, du);
  const auto loss = [&] { return da * gate.value(g, u); };
  const double numeric_g = support::central_difference(g, loss), numeric_u = support::central_difference(u, loss);
  return std::max(std::abs(dg - numeric_g), std::abs(du - numeric_u)) / std::max({1.0, std::abs(dg), std::abs(du)});
}

} // namespace

static_assert(hmoe::gating<gated<silu>>);
static_assert(hmoe::gating<gpt_oss_gate>);
static_assert(hmoe::gating<clamped<silu>>);
static_assert(!hmoe::gating<silu>);

TEST_CASE("an activation gates by multiplication") {
  CHECK(gated<silu>::value(0.5, -3.0) == silu::value(0.5) * -3.0);
  support::random_source random(11);
  for (int i = 0; i < 50; ++i)
    CHECK(slope_error(gated<gelu>{}, random.real(-4, 4), random.real(-4, 4)) <= 1e-8);
}

TEST_CASE("values of the gate of gpt-oss, from the formula in another language") {
  const gpt_oss_gate gate;
  CHECK(gate.value(0.5, 0.25) == doctest::Approx(0.43798554575797516).epsilon(1e-14));
  CHECK(gate.value(8.0, 9.0) == doctest::Approx(55.99962502642654).epsilon(1e-14)); // both clamped to 7
  CHECK(gate.value(7.0, 7.0) == doctest::Approx(55.99962502642654).epsilon(1e-14));
  CHECK(gate.value(-3.0, -9.0) == doctest::Approx(0.1084278582467158).epsilon(1e-14)); // up to -7
  CHECK(gate.value(2.0, -0.5) == doctest::Approx(0.9678293115721042).epsilon(1e-14));
  CHECK(gate.value(-0.7, -1.0) == 0);
  CHECK(gate.value(-50.0, 3.0) == doctest::Approx(-50.0 * 4 / (1 + std::exp(1.702 * 50))).epsilon(1e-14)); // no clamp
  CHECK(gate.value(8.0F, 9.0F) == doctest::Approx(55.99962502642654).epsilon(1e-6));
}

TEST_CASE("slopes of the gate of gpt-oss agree with finite differences on both sides of the limits") {
  support::random_source random(12);
  for (const gpt_oss_gate gate : {gpt_oss_gate{}, gpt_oss_gate{1.5, 0.9}})
    for (const double side : {0.0, 1.0})
      for (int i = 0; i < 40; ++i) {
        const double beyond = gate.limit + 0.01, within = gate.limit - 0.01;
        const double g = side == 0 ? random.real(-12, within) : random.real(beyond, 12);
        const double u = side == 0 ? random.real(-within, within) : -random.real(beyond, 12);
        CHECK(slope_error(gate, g, u) <= 1e-8);
        CHECK(slope_error(gate, g, -u) <= 1e-8);
      }
}

TEST_CASE("a clamped value has slope 0, a value at the limit the inner slope") {
  const gpt_oss_gate gate{2, 1};
  double dg = 9, du = 9;
  gate.backward(2.5, -2.5, 1.0, dg, du);
  CHECK(dg == 0);
  CHECK(du == 0);
  gate.backward(2.0, 2.0, 1.0, dg, du);
  const double sigma = 1 / (1 + std::exp(-2.0));
  CHECK(dg == doctest::Approx(3 * sigma * (1 + 2 * (1 - sigma))));
  CHECK(du == doctest::Approx(2 * sigma));
}

TEST_CASE("a clamped gate: values by the formula, slopes by differences on both sides of the limit") {
  const auto by_formula = [](double limit, double g, double u) {
    const double z = std::min(g, limit);
    return z / (1 + std::exp(-z)) * std::max(-limit, std::min(u, limit));
  };
  support::random_source random(13);
  for (const double limit : {0.8, 10.0})
    for (int i = 0; i < 60; ++i) {
      const double g = random.real(-2 * limit, 2 * limit), u = random.real(-2 * limit, 2 * limit);
      const clamped<silu> gate{limit};
      CHECK(gate.value(g, u) == doctest::Approx(by_formula(limit, g, u)).epsilon(1e-14));
      if (std::abs(g - limit) > 0.01 && std::abs(std::abs(u) - limit) > 0.01)
        CHECK(slope_error(gate, g, u) <= 1e-8);
    }
  double dg = 9, du = 9;
  clamped<silu>{2}.backward(2.5, -2.5, 1.0, dg, du);
  CHECK(dg == 0);
  CHECK(du == 0);
  clamped<silu>{2}.backward(2.0, -2.0, 1.0, dg, du); // at the limit: the inner slope
  CHECK(dg == doctest::Approx(-2 * silu::derivative(2.0)));
  CHECK(du == doctest::Approx(silu::value(2.0)));
  CHECK(std::isnan(clamped<silu>{2}.value(std::nan(""), 1.0)));
  CHECK(std::isnan(clamped<silu>{2}.value(1.0, std::nan(""))));
  CHECK_THROWS_WITH_AS(clamped<silu>{}.validate(),
                       "hmoe: clamped with limit = 0: give the model's swiglu_limit, above 0 (infinite: no clamping), "
                       "as in clamped<silu>{.limit = 10}",
                       hmoe::error);
}

TEST_CASE("an infinite limit clamps nothing, and NaN comes through") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(gpt_oss_gate{inf, 1.702}.value(100.0, 9.0) == doctest::Approx(1000.0));
  CHECK(std::isnan(gpt_oss_gate{}.value(nan, 1.0)));
  CHECK(std::isnan(gpt_oss_gate{}.value(1.0, nan)));
}

TEST_CASE("the gate of gpt-oss refuses a limit that clamps everything") {
  CHECK_NOTHROW(gpt_oss_gate{}.validate());
  CHECK_THROWS_WITH_AS((gpt_oss_gate{0, 1.5}.validate()),
                       "hmoe: gpt_oss_gate with limit = 0 and alpha = 1.5: the limit must be above 0 (infinite: no "
                       "clamping) and alpha finite",
                       hmoe::error);
  CHECK_THROWS_AS((gpt_oss_gate{7, std::nan("")}.validate()), hmoe::error);
}
