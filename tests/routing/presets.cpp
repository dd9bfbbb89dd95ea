// SPDX-License-Identifier: MIT
// Each preset against an implementation of its own: one token at a time, plain loops and sorts, from what the model
// does.
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/weightings/normalized.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
namespace presets = hmoe::routing::presets;
using numbers = std::vector<double>;

namespace {
constexpr std::size_t experts = 12;
using chosen_weights = std::map<std::size_t, double>; // by expert

numbers softmax(const numbers& z) {
  const double largest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const double v : z)
    sum += std::exp(v - largest);
  numbers p;
  for (const double v : z)
    p.push_back(std::exp(v - largest) / sum);
  return p;
}
numbers sigmoid(const numbers& z) {
  numbers p;
  for (const double v : z)
    p.push_back(1 / (1 + std::exp(-v)));
  return p;
}
std::vector<std::size_t> top(const numbers& v, std::size_t k) {
  std::vector<std::size_t> order(v.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return v[a] != v[b] ? v[a] > v[b] : a < b; });
  order.resize(k);
  return order;
}
chosen_weights pick(const numbers& v, const std::vector<std::size_t>& ids) {
  chosen_weights w;
  for (const std::size_t e : ids)
    w[e] = v[e];
  return w;
}
chosen_weights divided_by_sum(chosen_weights w, double epsilon = 0) {
  double sum = epsilon;
  for (const auto& [e, v] : w)
    sum += v;
  for (auto& [e, v] : w)
    v /= sum;
  return w;
}
chosen_weights times(chosen_weights w, double factor) {
  for (auto& [e, v] : w)
    v *= factor;
  return w;
}
/// Experts of all but the `kept` best of four groups replaced by `mask`.
numbers masked(const numbers& v, std::size_t kept, bool sum_of_two, double mask) {
  const std::size_t size = v.size() / 4;
  numbers scores;
  for (std::size_t g = 0; g < 4; ++g) {
    double first = -1e300, second = -1e300;
    for (std::size_t e = g * size; e < (g + 1) * size; ++e) {
      if (v[e] > first) {
        second = first;
        first = v[e];
      } else {
        second = std::max(second, v[e]);
      }
    }
    scores.push_back(sum_of_two ? first + second : first);
  }
  numbers result(v.size(), mask);
  for (const std::size_t g : top(scores, kept))
    for (std::size_t e = g * size; e < (g + 1) * size; ++e)
      result[e] = v[e];
  return result;
}

/// Runs the router over random rows of logits (its weight is the identity), half of them in coarse steps so that ties
/// are frequent, and compares with expected(logits). Shared experts must come last with weight 1.
enum shared_weights { shared_weight_1, any_shared_weight };
template <class Router>
void compare(Router router, const std::function<chosen_weights(const numbers&)>& expected,
             shared_weights of_shared = shared_weight_1) {
  const std::size_t tokens = 400, shared = router.size() - router.routed();
  support::random_source random(7);
  hmoe::matrix<double> x(tokens, experts);
  for (std::size_t t = 0; t < tokens; ++t)
    for (double& z : x.row(t))
      z = t % 2 == 0 ? random.real(-3, 3) : std::round(random.real(-3, 3));
  router.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
    if (info.name == "router.weight")
      for (std::size_t e = 0; e < experts; ++e)
        view(e, e) = 1;
  });
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(tokens, router.routed(), router.saved_per_token(), false);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), trace, assigned);
  assigned.validate(router.size());
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto row = std::as_const(x).row(t);
    const chosen_weights want = expected(numbers(row.begin(), row.end()));
    const auto ids = assigned.experts_of(t);
    const auto got = assigned.weights_of(t);
    REQUIRE(ids.size() == want.size() + shared);
    std::size_t i = 0;
    for (const auto& [e, w] : want) {
      REQUIRE(ids[i] == e);
      REQUIRE(got[i] == doctest::Approx(w).epsilon(1e-12));
      ++i;
    }
    for (std::size_t s = 0; s < shared; ++s)
      if (ids[i + s] == experts + s && (of_shared == any_shared_weight || got[i + s] == 1))
        continue;
      else
        FAIL("shared expert ", s, " is missing, or has weight ", got[i + s]);
  }
}
/// A bias for the choice that makes many biased scores negative.
template <class Router> numbers set_bias(Router& router) {
  support::random_source random(8);
  numbers bias;
  for (double& b : router.selection_policy().bias())
    bias.push_back(b = std::round(random.real(-2, 0.5) * 4) / 4);
  return bias;
}
numbers plus(numbers a, const numbers& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    a[i] += b[i];
  return a;
}
} // namespace

TEST_CASE("mixtral, qwen3_moe, hmoe_top_k: softmax, top k, renormalised") {
  const auto expected = [](const numbers& z) {
    const auto p = softmax(z);
    return divided_by_sum(pick(p, top(p, 2)));
  };
  compare(presets::mixtral<double>{experts, experts, 2}, expected);
  compare(presets::qwen3_moe<double>{experts, experts, 2}, expected);
  compare(presets::hmoe_top_k<double>{experts, experts, 2}, expected);
  compare(presets::qwen3_next<double>{experts, experts, 2}, expected, any_shared_weight);
  compare(presets::hunyuan<double>{experts, experts, 2}, expected);
  compare(presets::ernie_4_5<double>{experts, experts, {experts, 2}}, expected); // a bias of zeros
  static_assert(std::same_as<presets::minimax<float>, presets::mixtral<float>>);
  static_assert(std::same_as<presets::dbrx<float, routing::raw>, presets::mixtral<float, routing::raw>>);
}

TEST_CASE("dbrx with another norm") {
  const routing::normalized<> two{.order = 2};
  compare(presets::dbrx<double, routing::normalized<>>{experts, experts, 4, two}, [](const numbers& z) {
    const auto p = softmax(z);
    auto w = pick(p, top(p, 4));
    double squares = 0;
    for (const auto& [e, v] : w)
      squares += v * v;
    return times(w, 1 / std::sqrt(squares));
  });
}

TEST_CASE("ernie_4_5: softmax, biased choice, over a sum of at least 1e-12") {
  const auto expected = [](const numbers& bias, double least) {
    return [bias, least](const numbers& z) {
      const auto p = softmax(z);
      const auto w = pick(p, top(plus(p, bias), 3));
      double sum = 0;
      for (const auto& [e, v] : w)
        sum += v;
      return times(w, 1 / std::max(sum, least));
    };
  };
  presets::ernie_4_5<double> router{experts, experts, {experts, 3}};
  const numbers bias = set_bias(router); // before the router is copied
  compare(router, expected(bias, 1e-12));
  presets::ernie_4_5<double> bounded{experts, experts, {experts, 3}, {0.4}};
  const numbers bias_of_bounded = set_bias(bounded);
  compare(bounded, expected(bias_of_bounded, 0.4));
  CHECK(router.weighting_policy().epsilon == 1e-12);
  CHECK(router.weighting_policy().use == routing::epsilon_use::clamped);
}

TEST_CASE("minimax_m2, deepseek_v4: biased choice of sigmoid and sqrt(softplus), renormalised") {
  presets::minimax_m2<double> m2{experts, experts, {experts, 3}};
  const auto bias = set_bias(m2);
  compare(m2, [&](const numbers& z) {
    const auto s = sigmoid(z);
    return divided_by_sum(pick(s, top(plus(s, bias), 3)));
  });
  presets::deepseek_v4<double> v4{experts, experts, {experts, 3}, {.factor = 1.5}};
  set_bias(v4);
  compare(v4, [&](const numbers& z) {
    numbers s;
    for (const double v : z)
      s.push_back(std::sqrt(std::log(1 + std::exp(v))));
    return times(divided_by_sum(pick(s, top(plus(s, bias), 3)), 1e-20), 1.5);
  });
  static_assert(std::same_as<presets::glm4_moe<float>, presets::deepseek_v3<float>>);
  static_assert(std::same_as<presets::dots1<float>, presets::deepseek_v3<float>>);
}

TEST_CASE("phimoe: the two largest logits, each among its own candidates") {
  const auto expected = [](double epsilon) {
    return [epsilon](const numbers& z) {
      chosen_weights w;
      numbers left = z;
      for (const std::size_t e : top(z, 2)) {
        double sum = 0;
        for (std::size_t j = 0; j < experts; ++j)
          if ((left[e] - left[j]) / std::max(std::abs(z[j]), left[e]) <= 2 * epsilon || left[j] == left[e])
            sum += std::exp(left[j]);
        w[e] = std::exp(left[e]) / sum;
        left[e] = -std::numeric_limits<double>::infinity();
      }
      return w;
    };
  };
  compare(presets::phimoe<double>{experts, experts}, expected(0.01));
  compare(presets::phimoe<double>{experts, experts, {0.2}, {0.2}}, expected(0.2));
}

TEST_CASE("gemma4: a normalised and scaled input, renormalised, times a scale per expert") {
  presets::gemma4<double> router{{experts, experts, 1e-3}, 3, routing::scaled_per_expert<double>{experts}};
  static_assert(presets::gemma4<double>::reads_router_x());
  numbers scale, per_expert;
  support::random_source random(12);
  for (std::size_t e = 0; e < experts; ++e) {
    scale.push_back(router.score().inner().scale()[e] = random.real(0.5, 6));
    per_expert.push_back(router.weighting_policy().scale()[e] = random.real(-1, 2));
  }
  compare(router, [&](const numbers& x) {
    double squares = 0;
    for (const double v : x)
      squares += v * v;
    numbers z;
    for (std::size_t e = 0; e < experts; ++e)
      z.push_back(x[e] / std::sqrt(squares / 12 + 1e-3) * scale[e] / std::sqrt(12.0));
    const auto p = softmax(z);
    auto w = divided_by_sum(pick(p, top(p, 3)));
    for (auto& [e, v] : w)
      v *= per_expert[e];
    return w;
  });
}

TEST_CASE("nemotron_h, also with a latent size") {
  static_assert(std::same_as<presets::nemotron_h<float>, presets::deepseek_v3<float>>);
  presets::nemotron_h_latent<double> router{
      experts, experts, {experts, {.groups = 4, .kept = 2, .k = 4}}, {.factor = 5}};
  static_assert(presets::nemotron_h_latent<double>::reads_router_x());
  const numbers bias = set_bias(router);
  compare(router, [&](const numbers& z) {
    const auto s = sigmoid(z);
    const double none = -std::numeric_limits<double>::infinity();
    return times(divided_by_sum(pick(s, top(masked(plus(s, bias), 2, true, none), 4)), 1e-20), 5);
  });
}

TEST_CASE("constants that are left out are errors") {
  using support::error_of;
  CHECK(error_of([] {
          presets::deepseek_v3<float>{8, 8, {8, {.groups = 2, .kept = 1, .k = 2}}};
        }).find("scaled with factor = 0: give") != std::string::npos);
  CHECK(error_of([] {
          presets::deepseek_v3<float>{8, 8, {8, {.groups = 2, .kept = 1}}, {.factor = 2.5}};
        }).find("and k = 0: give all three") != std::string::npos);
  CHECK(error_of([] { presets::longcat_flash<float>{8, 8, {8, 2}}; }).find("scaled with factor = 0: give") !=
        std::string::npos);
  const presets::deepseek_v3<float> given{8, 8, {8, {.groups = 2, .kept = 1, .k = 2}}, {.factor = 2.5}};
  CHECK(given.weighting_policy().inner.epsilon == 1e-20);
}

TEST_CASE("granite_moe: top k of the logits, softmax over those") {
  compare(presets::granite_moe<double>{experts, experts, 4}, [](const numbers& z) {
    const auto p = softmax(z);
    return divided_by_sum(pick(p, top(z, 4)));
  });
  static_assert(std::same_as<presets::jetmoe<float>, presets::granite_moe<float>>);
}

TEST_CASE("deepseek_v4_hash: experts by vocabulary id, weights by sqrt(softplus)") {
  presets::deepseek_v4_hash<double> router{2, 3, {{2, 0, 1, 2}, 2}, {.factor = 1.5}};
  router.score().weight()(0, 0) = 1;
  router.score().weight()(1, 1) = 1;
  hmoe::matrix<double> x(2, 2);
  x(0, 0) = 1, x(0, 1) = -2, x(1, 0) = 0.5, x(1, 1) = 3; // logits {1, -2, 0} and {0.5, 3, 0}
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(2, 3, 0, false);
  const std::vector<hmoe::index_t> ids{1, 0};
  trace.set_inputs({.token_ids = ids});
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), trace, assigned);
  const auto s = [](double z) { return std::sqrt(std::log(1 + std::exp(z))); };
  const auto first = assigned.weights_of(0), second = assigned.weights_of(1);
  REQUIRE(first.size() == 3); // experts 1 and 2 and the shared one
  CHECK(first[0] == doctest::Approx(1.5 * s(-2) / (s(-2) + s(0))));
  CHECK(first[1] == doctest::Approx(1.5 * s(0) / (s(-2) + s(0))));
  CHECK(second[0] == doctest::Approx(1.5 * s(0.5) / (s(0.5) + s(0)))); // experts 0 and 2
  CHECK(second[2] == 1);
}

TEST_CASE("olmoe, qwen2_moe: softmax, top k, weights as they are") {
  const auto expected = [](const numbers& z) {
    const auto p = softmax(z);
    return pick(p, top(p, 4));
  };
  compare(presets::olmoe<double>{experts, experts, 4}, expected);
  compare(presets::qwen2_moe<double>{experts, experts, 4}, expected, any_shared_weight);
  compare(presets::qwen3_moe<double, routing::raw>{experts, experts, 4}, expected);
}

TEST_CASE("qwen2_moe's shared expert has weight sigmoid(w x)") {
  presets::qwen2_moe<double> router{3, 4, 2};
  CHECK(router.size() == 5);
  std::fill_n(router.shared_policy().gate().data(), 3, 0.5);
  hmoe::matrix<double> x(1, 3);
  x(0, 0) = 1;
  x(0, 2) = -4;
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(1, 4, 0, false);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const hmoe::workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), trace, assigned);
  CHECK(assigned.weights()[2] == doctest::Approx(1 / (1 + std::exp(1.5))));
}

TEST_CASE("deepseek_v2: groups by their best expert, others 0, weights times a scale") {
  compare(presets::deepseek_v2<double>{experts, experts, {.groups = 4, .kept = 2, .k = 3}, {.factor = 16}},
          [](const numbers& z) {
            const auto p = softmax(z);
            return times(pick(p, top(masked(p, 2, false, 0), 3)), 16);
          });
  compare(
      presets::deepseek_v2<double, routing::renormalized>{
          experts, experts, {.groups = 1, .kept = 1, .k = 3}, {.factor = 1}},
      [](const numbers& z) {
        const auto p = softmax(z);
        return divided_by_sum(pick(p, top(p, 3)));
      });
}

TEST_CASE("deepseek_v3: biased choice by groups, unbiased weights, over negative biased scores") {
  using routing::group_mask;
  std::size_t masks_differ = 0;
  const auto expected = [](const numbers& bias, double mask) {
    return [bias, mask](const numbers& z) {
      const auto s = sigmoid(z);
      return times(divided_by_sum(pick(s, top(masked(plus(s, bias), 2, true, mask), 4)), 1e-20), 2.5);
    };
  };
  presets::deepseek_v3<double> official{
      experts, experts, {experts, {.groups = 4, .kept = 2, .k = 4}}, {.factor = 2.5, .inner = {1e-20}}};
  presets::deepseek_v3<double, group_mask::zero> masked_by_zero{
      experts, experts, {experts, {.groups = 4, .kept = 2, .k = 4}}, {.factor = 2.5, .inner = {1e-20}}};
  const numbers bias = set_bias(official);
  set_bias(masked_by_zero);
  const double none = -std::numeric_limits<double>::infinity();
  compare(official, expected(bias, none));
  compare(masked_by_zero, expected(bias, 0));
  support::random_source random(9);
  for (int i = 0; i < 100; ++i) {
    numbers z(experts);
    for (double& v : z)
      v = random.real(-3, 3);
    masks_differ += expected(bias, none)(z) != expected(bias, 0)(z);
  }
  CHECK(masks_differ > 10); // or the two would not have been told apart
}

TEST_CASE("gpt_oss: top k of the logits with bias, softmax over those") {
  presets::gpt_oss<double> router{experts, experts, 4};
  support::random_source random(10);
  numbers bias;
  for (double& b : router.score().bias())
    bias.push_back(b = std::round(random.real(-2, 2) * 2) / 2);
  compare(router, [&](const numbers& x) {
    const auto z = plus(x, bias);
    const auto ids = top(z, 4);
    numbers of_chosen;
    for (const std::size_t e : ids)
      of_chosen.push_back(z[e]);
    const auto p = softmax(of_chosen);
    chosen_weights w;
    for (std::size_t i = 0; i < 4; ++i)
      w[ids[i]] = p[i];
    return w;
  });
}

TEST_CASE("llama4: top k of the logits, sigmoid, on the input side, one shared expert") {
  static_assert(presets::llama4<float>::weights_on_input());
  for (const std::size_t k : {1U, 3U})
    compare(presets::llama4<double>{experts, experts, k},
            [&](const numbers& z) { return pick(sigmoid(z), top(z, k)); });
}

TEST_CASE("switch_transformer: the most probable expert, weighted by its probability") {
  compare(presets::switch_transformer<double>{experts, experts}, [](const numbers& z) {
    const auto p = softmax(z);
    return pick(p, top(p, 1));
  });
}

TEST_CASE("longcat_flash: biased choice, weights times a scale without renormalisation") {
  presets::longcat_flash<double> router{experts, experts, {experts, 5}, {.factor = 6}};
  numbers bias = set_bias(router);
  for (std::size_t e = 0; e < experts; ++e)
    router.selection_policy().bias()[e] = bias[e] /= 16;
  compare(router, [&](const numbers& z) {
    const auto p = softmax(z);
    return times(pick(p, top(plus(p, bias), 5)), 6);
  });
}

TEST_CASE("hmoe_top_p: the shortest prefix that reaches p, renormalised") {
  compare(presets::hmoe_top_p<double>{experts, experts, 0.6}, [](const numbers& z) {
    const auto p = softmax(z);
    std::vector<std::size_t> ids;
    double sum = 0;
    for (const std::size_t e : top(p, experts)) {
      ids.push_back(e);
      sum += p[e];
      if (sum >= 0.6)
        break;
    }
    return divided_by_sum(pick(p, ids));
  });
}

TEST_CASE("every preset has the gradients of the whole layer right") {
  constexpr std::size_t d = 5, n = 8;
  SUBCASE("mixtral") { CHECK_ROUTER_GRADIENTS(presets::mixtral<double>{d, n, 2}); }
  SUBCASE("qwen2_moe") { CHECK_ROUTER_GRADIENTS(presets::qwen2_moe<double>{d, n, 3}); }
  SUBCASE("olmoe") { CHECK_ROUTER_GRADIENTS(presets::olmoe<double>{d, n, 3}); }
  SUBCASE("deepseek_v2") {
    CHECK_ROUTER_GRADIENTS(presets::deepseek_v2<double>{d, n, {.groups = 4, .kept = 2, .k = 3}, {.factor = 4}});
  }
  SUBCASE("deepseek_v3") {
    CHECK_ROUTER_GRADIENTS(
        presets::deepseek_v3<double>{d, n, {n, {.groups = 4, .kept = 2, .k = 3}}, {.factor = 2.5, .inner = {1e-20}}});
  }
  SUBCASE("deepseek_v4") { CHECK_ROUTER_GRADIENTS(presets::deepseek_v4<double>{d, n, {n, 3}, {.factor = 1.5}}); }
  SUBCASE("phimoe") { CHECK_ROUTER_GRADIENTS(presets::phimoe<double>{d, n, {0.1}, {0.1}}); }
  SUBCASE("gpt_oss") { CHECK_ROUTER_GRADIENTS(presets::gpt_oss<double>{d, n, 3}); }
  SUBCASE("llama4") { CHECK_ROUTER_GRADIENTS(presets::llama4<double>{d, n, 2}); }
  SUBCASE("switch_transformer") {
    CHECK_ROUTER_GRADIENTS(presets::switch_transformer<double>{d, n}, {.noise = hmoe::noise_source{hmoe::seed{1}, 2}});
  }
  SUBCASE("longcat_flash") { CHECK_ROUTER_GRADIENTS(presets::longcat_flash<double>{d, n, {n, 3}, {.factor = 6}}); }
  SUBCASE("hmoe_top_p") { CHECK_ROUTER_GRADIENTS(presets::hmoe_top_p<double>{d, n, 0.6}); }
}
