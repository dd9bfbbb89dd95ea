// SPDX-License-Identifier: MIT
// Sums that are 0 or next to it.
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>

#include "routing/weightings/one_row.hpp"
#include "routing/weightings/rows.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;

namespace {
template <class T> struct result {
  std::vector<T> w, d_logits, d_p;
};
/// Both experts of two chosen, ∂L/∂w = {1, 2}.
template <class T, class Weighting> result<T> run(const Weighting& weighting, const std::vector<T>& p) {
  const std::vector<index_t> chosen{0, 1};
  const std::vector<T> z(p.size()), dw{1, 2};
  result<T> r{std::vector<T>(2), std::vector<T>(p.size()), std::vector<T>(p.size())};
  weighting.forward(vector_view<const T>(z), vector_view<const T>(p), vector_view<const index_t>(chosen),
                    vector_view<T>(r.w));
  weighting.backward(vector_view<const T>(z), vector_view<const T>(p), vector_view<const index_t>(chosen),
                     vector_view<const T>(r.w), vector_view<const T>(dw), vector_view<T>(r.d_logits),
                     vector_view<T>(r.d_p));
  return r;
}

/// A layer of three experts, its router's weights all `value`; y, dx and every gradient of a batch of ones.
template <class Router> std::vector<float> everything(Router router, float value, std::vector<float>& y_values) {
  using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  std::vector<std::size_t> widths(router.size(), 2);
  hmoe::moe_layer layer{hmoe::expert_set{bank(4, widths)}, std::move(router)};
  layer.initialize(hmoe::seed{1});
  for (float& w : std::span<float>(layer.router().score().weight().data(), layer.router().score().weight().size()))
    w = value;
  const hmoe::context ctx{hmoe::backends::reference{}};
  hmoe::matrix<float> x(2, 4), y(2, 4), dy(2, 4), dx(2, 4);
  for (std::size_t i = 0; i < 8; ++i)
    x.data()[i] = 1, dy.data()[i] = static_cast<float>(i) - 3;
  auto tape = layer.make_tape(2);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, dy, dx, gradients);
  y_values.assign(y.data(), y.data() + y.size());
  std::vector<float> all(dx.data(), dx.data() + dx.size());
  gradients.visit_parameters([&](const hmoe::parameter_info&, auto view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      all.insert(all.end(), view.row(r).begin(), view.row(r).end());
  });
  return all;
}
bool all_zero(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
}
bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}
} // namespace

TEST_CASE_TEMPLATE("a sum of 0 gives weights of 0 and no gradient", T, float, double) {
  const auto check = [](const auto& weighting) {
    for (const std::vector<T>& p : {std::vector<T>{0, 0, 1}, std::vector<T>{T(0.5), T(-0.5), 1}}) {
      const auto r = run<T>(weighting, p);
      CHECK(r.w == std::vector<T>{0, 0});
      CHECK(r.d_p == std::vector<T>{0, 0, 0});
      CHECK(r.d_logits == std::vector<T>{0, 0, 0});
    }
  };
  check(routing::renormalized{});
  check(routing::renormalized{0, routing::epsilon_use::clamped});
  check(routing::scaled<>{2.5});
  check(routing::on_input_side<routing::renormalized>{});
  for (const auto& r : {run<T>(routing::renormalized{1e-320}, {0, 0, 1}), // 0 in float; in double 1 / ε overflows
                        run<T>(routing::renormalized_without_last{1e-320}, {0, 0, 1})}) {
    CHECK(r.w == std::vector<T>{0, 0});
    CHECK(r.d_p == std::vector<T>{0, 0, 0});
  }
}

TEST_CASE("a subnormal sum still gives weights, and no gradient that is infinite") {
  const float least = std::numeric_limits<float>::denorm_min();
  const auto r = run<float>(routing::renormalized{}, {3 * least, least, 1});
  CHECK(r.w == std::vector<float>{0.75F, 0.25F});
  CHECK(r.d_p == std::vector<float>{0, 0, 0});
  const float normal = std::numeric_limits<float>::min();
  CHECK(run<float>(routing::renormalized{}, {normal, normal, 1}).d_p[0] != 0);
}

TEST_CASE("NaN still shows") {
  const auto r = run<float>(routing::renormalized{}, {NAN, 0, 1});
  CHECK(std::isnan(r.w[0]));
  CHECK(std::isnan(r.d_p[1]));
}

TEST_CASE("a scale that is 0 in T gives no gradient instead of 0 / 0") {
  const auto r = run<float>(routing::scaled<>{1e-60}, {0.5F, 0.5F, 0});
  CHECK(r.w == std::vector<float>{0, 0});
  CHECK(r.d_p == std::vector<float>{0, 0, 0});
}

TEST_CASE("a layer whose chosen scores are all 0 returns 0 and has a gradient of 0") {
  std::vector<float> y;
  const auto gradients =
      everything(routing::router<routing::linear<float, routing::relu>, routing::top_k<>>{4, 3, 2}, 0, y);
  CHECK(all_zero(y));
  CHECK(all_zero(gradients));
}

TEST_CASE("deepseek_v3 where every sigmoid underflows") {
  for (const double epsilon : {1e-20, 0.0, -1.0}) { // -1: as the preset has it
    routing::scaled<routing::presets::deepseek_renormalized> weight{2.5};
    CHECK(weight.inner.epsilon == 1e-20);
    if (epsilon >= 0)
      weight.inner.epsilon = epsilon;
    // Logits of -104 underflow in float, those of -103 leave a subnormal number.
    for (const float w : {-26.0F, -25.75F}) {
      std::vector<float> y;
      routing::presets::deepseek_v3<float> router{
          4, 4, {4, {.groups = 2, .kept = 1, .k = 2}}, weight, routing::always_on{1}};
      const auto gradients = everything(std::move(router), w, y);
      CHECK(all_finite(y));
      CHECK_FALSE(all_zero(y)); // the shared expert
      CHECK(all_finite(gradients));
    }
  }
}

TEST_CASE("renormalised with an epsilon, added or as a lower bound") {
  using routing::epsilon_use;
  one_row::check_equal(one_row::weights(routing::renormalized{}), {0.125, 0.5, 0.375});
  one_row::check_equal(one_row::weights(routing::renormalized{0.2}), {0.1, 0.4, 0.3});
  one_row::check_equal(one_row::weights(routing::renormalized{0.2, epsilon_use::clamped}), {0.125, 0.5, 0.375});
  one_row::check_equal(one_row::weights(routing::renormalized{1.6, epsilon_use::clamped}), {0.0625, 0.25, 0.1875});
  CHECK(support::error_of([] { routing::renormalized{-1}.validate(2); }) ==
        "hmoe: renormalized with epsilon = -1: it must be finite and not below 0");
  const std::vector<float> none{0, 0}, z{0, 0};
  std::vector<float> w(2);
  routing::renormalized{1e-20}.forward(vector_view<const float>(z), vector_view<const float>(none),
                                       vector_view<const index_t>(std::vector<index_t>{0, 1}), vector_view<float>(w));
  CHECK(w == std::vector<float>{0, 0});
}

TEST_CASE("renormalized weights are p over the sum of the chosen p") {
  support::random_source random(11);
  for (int round = 0; round < 200; ++round) {
    const rows::row r(random, 6);
    double total = 0;
    for (const index_t e : r.chosen)
      total += r.p[e];
    const auto w = r.weights(routing::renormalized{});
    double sum = 0;
    for (std::size_t i = 0; i < r.chosen.size(); ++i) {
      CHECK(w[i] == doctest::Approx(r.p[r.chosen[i]] / total).epsilon(1e-14));
      sum += w[i];
    }
    CHECK(sum == doctest::Approx(1).epsilon(1e-14));
  }
}

TEST_CASE("backward through renormalized and softmax is the derivative by the logits") {
  rows::check_backward<routing::renormalized>();
}
