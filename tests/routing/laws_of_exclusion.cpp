// SPDX-License-Identifier: MIT
// An expert that is out of service (a router bias of minus infinity, non_finite::exclude) against a layer without it.
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/batch_selections/balanced.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/selections/two_level.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::matrix;
using routing::router;

namespace {
constexpr std::size_t d = 5, tokens = 12, out = 2; // expert 2 of 5 is out of service, or not there
constexpr double minus_infinity = -std::numeric_limits<double>::infinity();
template <class Function = routing::softmax> using linear = routing::linear<double, Function, true>;
using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;

struct outcome {
  matrix<double> y{tokens, d}, dx{tokens, d};
  std::vector<double> gradients; ///< of experts and router, without those of expert `out`
  std::vector<std::vector<index_t>> chosen;
};

/// Parameters by expert: the same numbers for the same expert in both layers.
template <class Layer> outcome run(Layer& layer, std::size_t present, bool gap) {
  const auto original = [&](std::size_t e) { return gap || e < out ? e : e + 1; };
  // One stream per tensor, row of expert e at the same place in both layers.
  std::uint64_t stream = 0;
  layer.router().visit_parameters([&](const hmoe::parameter_info& info, auto view) {
    ++stream;
    const bool of_experts = view.rows() == present || view.cols() == present;
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (std::size_t c = 0; c < view.cols(); ++c) {
        const std::size_t row = of_experts && view.rows() == present ? original(r) : r;
        const std::size_t column = of_experts && view.rows() != present ? original(c) : c;
        view(r, c) = hmoe::normal(hmoe::seed{stream}, row, column) * (info.name == "router.selection_bias" ? 0.1 : 1);
      }
  });
  if (gap)
    layer.router().score().bias()[out] = minus_infinity;
  for (std::size_t e = 0; e < present; ++e) {
    auto& experts = layer.experts().template bank<0>();
    std::uint64_t part = 100 + 3 * original(e);
    for (auto view : {experts.gate(e), experts.up(e), experts.down(e)}) {
      ++part;
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (std::size_t c = 0; c < view.cols(); ++c)
          view(r, c) = hmoe::normal(hmoe::seed{part}, r, c);
    }
  }
  support::random_source random(3);
  const auto x = support::random_matrix<double>(random, tokens, d),
             dy = support::random_matrix<double>(random, tokens, d),
             a = support::random_matrix<double>(random, tokens, 5);
  outcome result;
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(tokens);
  layer.forward(ctx, x, result.y, tape);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t e = 0; e < present; ++e) {
      tape.trace().d_probabilities()(t, e) = a(t, original(e)); // and on the expert that is out: no matter
      tape.trace().d_logits()(t, e) = original(e) == out ? std::nan("") : 0.5 * a(t, original(e));
    }
  auto gradients = layer.make_gradients();
  layer.backward(ctx, tape, dy, result.dx, gradients);
  gradients.router.visit_parameters([&](const hmoe::parameter_info& info, auto view) {
    if (info.name == "router.selection_bias")
      return;
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (std::size_t c = 0; c < view.cols(); ++c) {
        const std::size_t e = view.rows() == present ? r : view.cols() == present ? c : 0;
        if (gap && e == out && (view.rows() == present || view.cols() == present))
          CHECK(view(r, c) == 0);
        else
          result.gradients.push_back(view(r, c));
      }
  });
  for (std::size_t e = 0; e < present; ++e)
    if (original(e) != out) {
      auto& experts = gradients.experts.template bank<0>();
      for (auto view : {experts.gate(e), experts.up(e), experts.down(e)})
        result.gradients.insert(result.gradients.end(), view.data(), view.data() + view.size());
    }
  for (std::size_t t = 0; t < tokens; ++t) {
    result.chosen.emplace_back();
    for (const index_t e : std::as_const(tape).assignment().experts_of(t))
      result.chosen.back().push_back(static_cast<index_t>(original(e)));
  }
  if (gap) {
    CHECK(tape.trace().tokens_per_expert()[out] == 0);
    for (std::size_t t = 0; t < tokens; ++t)
      CHECK(tape.trace().probabilities()(t, out) == 0);
  }
  return result;
}

/// with: a router of five experts; without: the same of four.
template <class Router> void check(Router with, Router without) {
  with.set_on_non_finite(routing::non_finite::exclude);
  std::vector<std::size_t> five{1, 2, 3, 4, 2}, four{1, 2, 4, 2};
  for (std::size_t s = with.routed(); s < with.size(); ++s) {
    five.push_back(2);
    four.push_back(2);
  }
  hmoe::moe_layer gapped{hmoe::expert_set{bank(d, five)}, std::move(with)};
  hmoe::moe_layer plain{hmoe::expert_set{bank(d, four)}, std::move(without)};
  const outcome got = run(gapped, 5, true), expected = run(plain, 4, false);
  CHECK(got.chosen == expected.chosen);
  for (std::size_t i = 0; i < got.y.size(); ++i) {
    CHECK(got.y.data()[i] == expected.y.data()[i]);
    CHECK(got.dx.data()[i] == doctest::Approx(expected.dx.data()[i]).epsilon(1e-12));
  }
  REQUIRE(got.gradients.size() == expected.gradients.size());
  for (std::size_t i = 0; i < got.gradients.size(); ++i)
    CHECK(got.gradients[i] == doctest::Approx(expected.gradients[i]).epsilon(1e-12));
}
template <class Function = routing::softmax, class Weighting = routing::renormalized, class Selection>
void check_same(Selection select, Weighting weight = {}) {
  check(router(linear<Function>(d, 5), select, weight), router(linear<Function>(d, 4), select, weight));
}
} // namespace

TEST_CASE("an expert out of service: score functions") {
  check_same(routing::top_k<>{2});
  check_same<routing::sigmoid>(routing::top_k<>{3});
  check_same<routing::sqrt_softplus>(routing::top_k<>{2});
  check_same<routing::relu>(routing::positive{}, routing::raw{});
  check_same<routing::unscored>(routing::top_k<>{2}, routing::softmax_over_selected{});
}

TEST_CASE("an expert out of service: selections") {
  check_same(routing::top_p{0.8});
  check_same(routing::top_p{1});
  check_same(routing::threshold{0.1}, routing::raw{});
  check_same<routing::unscored>(routing::threshold{-5}, routing::softmax_over_selected{});
  check_same(routing::cumulative_threshold{0.7});
  check(router(linear<>(d, 5), routing::cost_aware_top_p({1, 2, 0, 3, 4}, 0.8)),
        router(linear<>(d, 4), routing::cost_aware_top_p({1, 2, 3, 4}, 0.8)));
  check(router(linear<>(d, 5), routing::two_level(std::vector<std::size_t>{3, 2}, 1, 2)),
        router(linear<>(d, 4), routing::two_level(std::vector<std::size_t>{2, 2}, 1, 2)));
  check(router(linear<>(d, 5), routing::biased<double, routing::top_k<>>(5, {3})),
        router(linear<>(d, 4), routing::biased<double, routing::top_k<>>(4, {3})));
  check_same(routing::expert_choice{1.5}, routing::raw{});
  check_same(routing::sinkhorn{2});
  check_same(routing::balanced{}, routing::sigmoid_of_logit{});
}

TEST_CASE("an expert out of service: k above what is left, group limits, other policies around") {
  // Five experts are asked for and four are left: all of them, as in a layer of four.
  check(router(linear<>(d, 5), routing::top_k<>{5}), router(linear<>(d, 4), routing::top_k<>{4}));
  check(router(linear<>(d, 5), routing::top_k<>{2}, routing::raw{}, routing::always_on{1}),
        router(linear<>(d, 4), routing::top_k<>{2}, routing::raw{}, routing::always_on{1}));
  const double none = minus_infinity;
  const auto choose = [](const auto& select, std::vector<double> row) {
    std::vector<index_t> chosen(row.size());
    std::vector<double> scratch(routing::selection_scratch(select, row.size()));
    chosen.resize(routing::select_row(select, hmoe::vector_view<const double>(row), hmoe::vector_view<index_t>(chosen),
                                      hmoe::vector_view<double>(scratch)));
    return chosen;
  };
  using ids = std::vector<index_t>;
  // By its two best, a group counts what is left of it: 0.9 against 0.3 + 0.4.
  CHECK(choose(routing::group_limited<>{2, 1, 1}, {none, 0.9, 0.3, 0.4}) == ids{1});
  using zero = routing::group_limited<routing::group_score::best, routing::group_mask::zero>;
  CHECK(choose(zero{2, 1, 3}, {none, -0.2, -0.3, -0.4})[0] == 2); // 0 for the other group, but not for expert 0
  CHECK(choose(routing::two_level(std::vector<std::size_t>{2, 2}, 1, 1), {none, none, -3, -4}) == ids{2});
}

TEST_CASE("NaN, plus infinity, and a token without an expert are errors") {
  router<linear<>, routing::top_k<>> r(1, 3, 1);
  r.set_on_non_finite(routing::non_finite::exclude);
  bank experts(1, std::vector<std::size_t>{1, 1, 1});
  hmoe::moe_layer layer{hmoe::expert_set{experts}, r};
  const hmoe::context ctx{hmoe::backends::reference{}};
  matrix<double> x(2, 1), y(2, 1);
  y(0, 0) = 7;
  const auto error = [&](double a, double b, double c) {
    layer.router().score().bias()[0] = a;
    layer.router().score().bias()[1] = b;
    layer.router().score().bias()[2] = c;
    return support::error_of([&] { layer.forward(ctx, x, y); });
  };
  CHECK(error(0, std::nan(""), 0).find("hmoe: the router's logit of token 0 for expert 1 is nan") == 0);
  CHECK(error(0, -minus_infinity, 0) == "hmoe: the router's logit of token 0 for expert 1 is inf");
  CHECK(error(minus_infinity, minus_infinity, minus_infinity) ==
        "hmoe: token 0 has no expert left: all 3 logits of the router are -inf");
  CHECK(y(0, 0) == 7);
  CHECK(error(minus_infinity, minus_infinity, 0) == "no error");
  layer.router().set_on_non_finite(routing::non_finite::error);
  CHECK(error(0, minus_infinity, 0) == "hmoe: the router's logit of token 0 for expert 1 is -inf");
}
