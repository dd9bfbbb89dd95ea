// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>
#include <hmoe/testing/probes.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

using hmoe::index_t;
using hmoe::matrix;
using hmoe::vector_view;
namespace routing = hmoe::routing;

namespace {
const hmoe::context cpu{hmoe::backends::reference{}};

template <class T> struct routed {
  hmoe::router_trace<T> trace;
  hmoe::assignment<T> assigned;
  template <class Router> void run(const Router& router, const matrix<T>& x) {
    const hmoe::workspace::scope scope(cpu.workspace());
    trace.resize(x.rows(), router.routed(), router.saved_per_token(), true);
    router.forward(cpu, x.view(), trace, assigned);
  }
};

template <class Router> std::string error_of(const Router& router, const auto& x) {
  routed<typename Router::value_type> result;
  try {
    result.run(router, x);
  } catch (const hmoe::error& e) {
    return e.what();
  }
  return "";
}

template <class Selection> auto with_selection(Selection select) {
  return routing::router<routing::linear<double>, Selection>(routing::linear<double>(3, 4), select);
}
} // namespace

TEST_CASE_TEMPLATE("the whole way back agrees with finite differences, sinks included", Weighting, routing::raw,
                   routing::renormalized, routing::softmax_over_selected) {
  const std::size_t tokens = 9, d = 5, experts = 6;
  const auto check = [&](auto select, std::uint64_t seed) {
    support::random_source random(seed);
    routing::router<routing::linear<double>, decltype(select), Weighting> router(routing::linear<double>(d, experts),
                                                                                 select);
    support::fill(random, router.score().weight(), 1.5);
    auto x = support::random_matrix<double>(random, tokens, d);
    routed<double> run;
    run.run(router, x);
    const std::vector<index_t> ids(run.assigned.experts().begin(), run.assigned.experts().end());
    const auto on_logits = support::random_matrix<double>(random, tokens, experts),
               on_p = support::random_matrix<double>(random, tokens, experts);
    const auto on_weights = support::random_matrix<double>(random, 1, tokens * experts);
    for (std::size_t i = 0; i < on_logits.size(); ++i) {
      run.trace.d_logits().data()[i] += on_logits.data()[i];
      run.trace.d_probabilities().data()[i] += on_p.data()[i];
    }
    const auto loss = [&] {
      routed<double> now;
      now.run(router, x);
      REQUIRE(std::vector<index_t>(now.assigned.experts().begin(), now.assigned.experts().end()) ==
              ids); // away from ties
      double sum = 0;
      for (std::size_t i = 0; i < on_logits.size(); ++i)
        sum +=
            on_logits.data()[i] * now.trace.logits().data()[i] + on_p.data()[i] * now.trace.probabilities().data()[i];
      for (std::size_t a = 0; a < ids.size(); ++a)
        sum += on_weights.data()[a] * now.assigned.weights()[a];
      return sum;
    };
    matrix<double> dx(tokens, d);
    auto gradients = router;
    hmoe::set_zero(gradients);
    const hmoe::workspace::scope scope(cpu.workspace());
    router.backward(cpu, x.view(), std::as_const(run.trace), std::as_const(run.assigned),
                    vector_view<const double>(on_weights.data(), ids.size()), dx.view(), gradients);
    CHECK(support::gradient_error({x.data(), x.size()}, {dx.data(), dx.size()}, loss) < 1e-6);
    const auto weight = router.score().weight();
    const auto slope = gradients.score().weight();
    CHECK(support::gradient_error({weight.data(), weight.size()}, {slope.data(), slope.size()}, loss) < 1e-6);
  };
  check(routing::top_k<>{1}, 1);
  check(routing::top_k<>{2}, 2);
  check(routing::top_k<6>{}, 3);
  check(routing::top_p{0.6}, 4);
  check(routing::top_p{1.0}, 5);
  check(routing::threshold{0.25}, 6); // some tokens get none
}

TEST_CASE("trace and assignment hold what an independent computation gives") {
  support::random_source random(51);
  routing::top_k_router<double> router(4, 5, 2);
  support::fill(random, router.score().weight());
  const auto x = support::random_matrix<double>(random, 130, 4);
  routed<double> run;
  run.run(router, x);
  run.assigned.validate(5);
  std::vector<index_t> counts(5);
  for (std::size_t t = 0; t < x.rows(); ++t) {
    std::vector<double> p(5);
    double sum = 0;
    for (std::size_t e = 0; e < 5; ++e) {
      double z = 0;
      for (std::size_t i = 0; i < 4; ++i)
        z += x(t, i) * std::as_const(router).score().weight()(e, i);
      CHECK(run.trace.logits()(t, e) == doctest::Approx(z).epsilon(1e-13));
      sum += p[e] = std::exp(z);
    }
    std::size_t best = 0, second = 5;
    for (std::size_t e = 0; e < 5; ++e) {
      p[e] /= sum;
      CHECK(run.trace.probabilities()(t, e) == doctest::Approx(p[e]).epsilon(1e-13));
      best = p[e] > p[best] ? e : best;
    }
    for (std::size_t e = 0; e < 5; ++e)
      if (e != best && (second == 5 || p[e] > p[second]))
        second = e;
    const auto ids = std::as_const(run.assigned).experts_of(t);
    const auto w = std::as_const(run.assigned).weights_of(t);
    REQUIRE(ids.size() == 2);
    CHECK(ids[0] == std::min(best, second));
    CHECK(ids[1] == std::max(best, second));
    CHECK(w[0] == doctest::Approx(p[ids[0]] / (p[best] + p[second])).epsilon(1e-13));
    CHECK(w[0] + w[1] == doctest::Approx(1).epsilon(1e-14));
    ++counts[ids[0]];
    ++counts[ids[1]];
  }
  CHECK(std::vector<index_t>(run.trace.tokens_per_expert().begin(), run.trace.tokens_per_expert().end()) == counts);
}

TEST_CASE("fixed and run-time k give the same bits") {
  support::random_source random(52);
  routing::router<routing::linear<float>, routing::top_k<2>> fixed(4, 5);
  routing::top_k_router<float> dynamic(4, 5, 2);
  support::fill(random, fixed.score().weight());
  for (std::size_t i = 0; i < 20; ++i)
    dynamic.score().weight().data()[i] = fixed.score().weight().data()[i];
  const auto x = support::random_matrix<float>(random, 100, 4);
  routed<float> a, b;
  a.run(fixed, x);
  b.run(dynamic, x);
  CHECK(hmoe::testing::same_bits(a.assigned.experts(), b.assigned.experts()));
  CHECK(hmoe::testing::same_bits(a.assigned.weights(), b.assigned.weights()));
}

TEST_CASE("the same bits on every number of threads and in every batch") {
  support::random_source random(53);
  routing::top_p_router<float> router(6, 7, 0.7);
  support::fill(random, router.score().weight(), 2);
  const auto x = support::random_matrix<float>(random, 300, 6);
  routed<float> whole;
  whole.run(router, x);
  for (const std::size_t threads : {2U, 3U}) {
    const hmoe::context parallel{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
    const hmoe::workspace::scope scope(parallel.workspace());
    routed<float> other;
    other.trace.resize(300, 7, 0, true);
    router.forward(parallel, x.view(), other.trace, other.assigned);
    CHECK(hmoe::testing::same_bits(whole.assigned.offsets(), other.assigned.offsets()));
    CHECK(hmoe::testing::same_bits(whole.assigned.experts(), other.assigned.experts()));
    CHECK(hmoe::testing::same_bits(whole.assigned.weights(), other.assigned.weights()));
  }
  for (const std::size_t t : {0U, 63U, 64U, 299U}) {
    matrix<float> row(1, 6);
    std::copy_n(x.row(t).begin(), 6, row.data());
    routed<float> alone;
    alone.run(router, row);
    CHECK(hmoe::testing::same_bits(alone.assigned.experts_of(0), whole.assigned.experts_of(t)));
    CHECK(hmoe::testing::same_bits(alone.assigned.weights_of(0), whole.assigned.weights_of(t)));
  }
}

TEST_CASE("a selection may be a lambda or choose none") {
  support::random_source random(54);
  auto even = with_selection([](vector_view<const double> p, vector_view<index_t> chosen) {
    std::size_t count = 0;
    for (std::size_t e = p.size(); e-- > 0;) // descending on purpose: the router sorts
      if (e % 2 == 0)
        chosen[count++] = static_cast<index_t>(e);
    return count;
  });
  support::fill(random, even.score().weight());
  const auto x = support::random_matrix<double>(random, 3, 3);
  routed<double> run;
  run.run(even, x);
  for (std::size_t t = 0; t < 3; ++t) {
    const auto ids = run.assigned.experts_of(t);
    CHECK(std::vector<index_t>(ids.begin(), ids.end()) == std::vector<index_t>{0, 2});
  }
  run.run(with_selection([](auto, auto) { return 0U; }), x);
  CHECK(run.assigned.size() == 0);
  CHECK(run.assigned.tokens() == 3);
}

TEST_CASE("a selection with scratch gets its own on every thread") {
  struct by_scratch { // copies the row, so that a shared scratch would mix rows up
    static std::size_t scratch_size(std::size_t experts) { return experts; }
    std::size_t operator()(vector_view<const float> p, vector_view<index_t> chosen, vector_view<float> scratch) const {
      REQUIRE(scratch.size() == p.size());
      std::copy(p.begin(), p.end(), scratch.begin());
      chosen[0] = routing::next_preferred(vector_view<const float>(scratch), hmoe::no_index);
      return 1;
    }
    static std::size_t max_selected(std::size_t) { return 1; }
  };
  support::random_source random(55);
  routing::router<routing::linear<float>, by_scratch> router(6, 7);
  routing::top_k_router<float> expected(6, 7, 1);
  support::fill(random, router.score().weight());
  std::copy_n(router.score().weight().data(), 42, expected.score().weight().data());
  const auto x = support::random_matrix<float>(random, 300, 6);
  routed<float> a;
  a.run(expected, x);
  hmoe::router_trace<float> trace;
  hmoe::assignment<float> assigned;
  trace.resize(300, 7, 0, true);
  const hmoe::context parallel{hmoe::backends::reference{}, hmoe::executors::openmp{3}};
  const hmoe::workspace::scope scope(parallel.workspace());
  router.forward(parallel, x.view(), trace, assigned);
  CHECK(hmoe::testing::same_bits(a.assigned.experts(), assigned.experts()));
}

TEST_CASE("what a bad selection returns is refused with the numbers") {
  matrix<double> x(2, 3);
  const auto choosing = [](std::vector<index_t> ids, std::size_t count) {
    return with_selection([ids, count](vector_view<const double>, vector_view<index_t> chosen) {
      std::copy(ids.begin(), ids.end(), chosen.begin());
      return count;
    });
  };
  CHECK(error_of(choosing({3, 1}, 2), x).empty());
  CHECK(error_of(choosing({1, 1}, 2), x) == "hmoe: the selection chose expert 1 twice for token 0");
  CHECK(error_of(choosing({4}, 1), x) == "hmoe: the selection chose expert 4 of 4 for token 0");
  CHECK(error_of(choosing({}, 5), x) == "hmoe: the selection chose 5 experts for token 0, at most 4 are possible");
}

TEST_CASE("non-finite logits are an error by default") {
  routing::top_k_router<double> router(3, 4, 2);
  router.score().weight()(2, 0) = 1;
  matrix<double> x(3, 3);
  CHECK(error_of(router, x).empty());
  x(1, 0) = std::numeric_limits<double>::infinity();
  // Token 1's logit for expert 0 is 0·∞ = NaN.
  CHECK(error_of(router, x).find("logit of token 1 for expert 0 is") != std::string::npos);
}

TEST_CASE_TEMPLATE("propagated, they make NaN of every weight of their token and of no other", Weighting, routing::raw,
                   routing::renormalized, routing::softmax_over_selected) {
  const double bad = std::numeric_limits<double>::quiet_NaN();
  const auto check = [&](auto select) {
    support::random_source random(56);
    routing::router<routing::linear<double>, decltype(select), Weighting> router(routing::linear<double>(3, 5), select);
    support::fill(random, router.score().weight());
    router.set_on_non_finite(routing::non_finite::propagate);
    auto x = support::random_matrix<double>(random, 3, 3);
    routed<double> clean, spoilt;
    clean.run(router, x);
    x(1, 2) = bad;
    spoilt.run(router, x);
    REQUIRE(spoilt.assigned.experts_of(1).size() >= 1);
    for (const double w : spoilt.assigned.weights_of(1))
      CHECK(std::isnan(w));
    for (const std::size_t t : {0U, 2U})
      CHECK(hmoe::testing::same_bits(clean.assigned.weights_of(t), spoilt.assigned.weights_of(t)));
  };
  check(routing::top_k<>{2});
  check(routing::top_p{0.6});
  check(routing::threshold{0.1});

  // One bad logit among good ones: the choice is meaningless, so the weights must not look sound.
  routing::top_k_router<double, Weighting> router(3, 5, 2);
  router.set_on_non_finite(routing::non_finite::propagate);
  router.score().weight()(4, 0) = std::numeric_limits<double>::infinity();
  matrix<double> x(1, 3);
  x(0, 0) = 1;
  routed<double> run;
  run.run(router, x);
  for (const double w : run.assigned.weights_of(0))
    CHECK(std::isnan(w));
}

TEST_CASE("a router checks its selection when it is made") {
  CHECK_THROWS_WITH_AS(routing::top_k_router<float>(8, 4, 5), "hmoe: top_k with k = 5 for 4 experts: k must be 1 to 4",
                       hmoe::error);
  CHECK_THROWS_AS(routing::top_p_router<float>(8, 4, 1.5), hmoe::error);
}
