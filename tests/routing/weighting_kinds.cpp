// SPDX-License-Identifier: MIT
// Weightings with parameters, and those beyond raw, renormalised and softmax over the selected.
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/unscored.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/equal.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "support/error_of.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;
using routing::linear;
using routing::router;
using routing::top_k;
using support::error_of;

namespace {
const std::vector<double> logits{0.5, -1, 2, 0.25}, p{0.1, 0.2, 0.4, 0.3};
const std::vector<index_t> chosen{0, 2, 3};

template <class Weighting> std::vector<double> weights(const Weighting& weighting, std::vector<index_t> of = chosen) {
  std::vector<double> w(of.size());
  weighting.forward(vector_view<const double>(logits), vector_view<const double>(p), vector_view<const index_t>(of),
                    vector_view<double>(w));
  return w;
}
void check_equal(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    CHECK(got[i] == doctest::Approx(expected[i]).epsilon(1e-13));
}
double sigma(double z) { return 1 / (1 + std::exp(-z)); }
} // namespace

TEST_CASE("renormalised with an epsilon, added or as a lower bound") {
  using routing::epsilon_use;
  check_equal(weights(routing::renormalized{}), {0.125, 0.5, 0.375});
  check_equal(weights(routing::renormalized{0.2}), {0.1, 0.4, 0.3});
  check_equal(weights(routing::renormalized{0.2, epsilon_use::clamped}), {0.125, 0.5, 0.375});
  check_equal(weights(routing::renormalized{1.6, epsilon_use::clamped}), {0.0625, 0.25, 0.1875});
  CHECK(error_of([] { routing::renormalized{-1}.validate(2); }) ==
        "hmoe: renormalized with epsilon = -1: it must be finite and not below 0");
  const std::vector<float> none{0, 0}, z{0, 0};
  std::vector<float> w(2);
  routing::renormalized{1e-20}.forward(vector_view<const float>(z), vector_view<const float>(none),
                                       vector_view<const index_t>(std::vector<index_t>{0, 1}), vector_view<float>(w));
  CHECK(w == std::vector<float>{0, 0});
}

TEST_CASE("a scale multiplies the weights of any weighting") {
  check_equal(weights(routing::scaled<routing::raw>{2.5}), {0.25, 1, 0.75});
  check_equal(weights(routing::scaled<>{4, {0.2}}), {0.4, 1.6, 1.2});
  check_equal(weights(routing::scaled<routing::scaled<routing::raw>>{2, {3}}), {0.6, 2.4, 1.8});
  CHECK(error_of([] { routing::scaled<>{0}.validate(2); }) ==
        "hmoe: scaled with factor = 0: it must be finite and not 0");
  CHECK(error_of([] { routing::scaled<>{1, {-1}}.validate(2); }) ==
        "hmoe: renormalized with epsilon = -1: it must be finite and not below 0");
}

TEST_CASE("sigmoid of the logit, equal weights, and MoE++'s last expert") {
  check_equal(weights(routing::sigmoid_of_logit{}), {sigma(0.5), sigma(2), sigma(0.25)});
  check_equal(weights(routing::equal{}), {1.0 / 3, 1.0 / 3, 1.0 / 3});
  check_equal(weights(routing::renormalized_without_last{}), {0.2, 0.8, 0});
  check_equal(weights(routing::renormalized_without_last{}, {3}), {0});
  check_equal(weights(routing::renormalized_without_last{}, {0, 1}), {1.0 / 3, 2.0 / 3});
  check_equal(weights(routing::renormalized_without_last{1}, {0, 1}), {0.1, 0.2});
}

TEST_CASE("every weighting has the gradients of the whole layer right") {
  constexpr std::size_t d = 5, n = 6;
  SUBCASE("epsilon added") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sigmoid>, top_k<>>(d, n, 3, routing::renormalized{0.3}));
  }
  SUBCASE("epsilon clamped") {
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::sigmoid>, top_k<>>(
        d, n, 3, routing::renormalized{1.8, routing::epsilon_use::clamped}));
  }
  SUBCASE("scaled") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::scaled<>>(d, n, 3, routing::scaled<>{2.5}));
  }
  SUBCASE("scaled softmax over the selected") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::scaled<routing::softmax_over_selected>>(
        d, n, 3, routing::scaled<routing::softmax_over_selected>{2.5}));
  }
  SUBCASE("sigmoid of the logit") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::sigmoid_of_logit>(d, n, 3));
  }
  SUBCASE("on the input side") {
    using weighting = routing::on_input_side<routing::sigmoid_of_logit>;
    CHECK_ROUTER_GRADIENTS(router<linear<double, routing::unscored>, top_k<>, weighting>(d, n, 3));
  }
  SUBCASE("scaled on the input side") {
    using weighting = routing::on_input_side<routing::scaled<>>;
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, weighting>(d, n, 3, weighting{{2.5, {}}}));
  }
  SUBCASE("without the last") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::renormalized_without_last>(d, n, 3));
  }
  SUBCASE("equal") {
    CHECK_ROUTER_GRADIENTS(router<linear<double>, top_k<>, routing::equal>(d, n, 3)); // through the sinks only
  }
}

TEST_CASE("on the input side and on the output side are different layers") {
  using weighting = routing::sigmoid_of_logit;
  static_assert(router<linear<double>, top_k<>, routing::on_input_side<weighting>>::weights_on_input());
  static_assert(!router<linear<double>, top_k<>, weighting>::weights_on_input());
}

TEST_CASE("shared experts behind a sigmoid gate: weight, gradients, size") {
  constexpr std::size_t d = 5, n = 4;
  using gated = router<linear<double>, top_k<>, routing::raw, routing::sigmoid_gated<double>>;
  gated r(d, n, 2, {}, routing::sigmoid_gated<double>(d, 2));
  support::random_source random(1);
  r.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  const auto x = support::random_matrix<double>(random, 70, d);
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(70, n, r.saved_per_token(), true);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  r.forward(ctx, x.view(), trace, assigned);
  assigned.validate(n + 2);
  for (std::size_t t = 0; t < 70; ++t) {
    REQUIRE(assigned.experts_of(t).size() == 4);
    for (std::size_t j = 0; j < 2; ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < d; ++c)
        sum += std::as_const(r).shared_policy().gate()(j, c) * x(t, c);
      CHECK(assigned.experts_of(t)[2 + j] == n + j);
      CHECK(assigned.weights_of(t)[2 + j] == doctest::Approx(sigma(sum)));
    }
  }
  CHECK_ROUTER_GRADIENTS(r);
  CHECK_ROUTER_GRADIENTS(gated(d, n, 2)); // one, made for d
  CHECK(gated(d, n, 2).size() == n + 1);
  CHECK(error_of([] { gated(d, n, 2, {}, routing::sigmoid_gated<double>(7)); }) ==
        "hmoe: the gate of the shared experts reads tokens of 7 values, the router of 5");
  CHECK(error_of([] { routing::sigmoid_gated<double>(5, 0); }) ==
        "hmoe: a gate from d_model = 5 to 0 shared experts: both must be at least 1");
}
