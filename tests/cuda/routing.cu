// SPDX-License-Identifier: MIT
// Routers on the device against the same routers on the host.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/positive.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>

#include "routed.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace hmoe;

namespace kernels = hmoe::backends::cuda_detail;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

bool near(float a, float b, double tolerance) {
  return (std::isnan(a) && std::isnan(b)) || a == b || std::abs(double{a} - b) <= tolerance * (1 + std::abs(double{b}));
}
template <class A, class B> void check_near(const A& a, const B& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!near(a[i], b[i], tolerance)) {
      CHECK_MESSAGE(false, "value ", i, ": ", a[i], " instead of ", b[i]);
      return;
    }
}

/// The device's routing of a batch is right: logits as the host's but for the order of sums, and then each step what
/// the host makes of the device's result of the step before, choices bit for bit.
template <class S = float, class Router>
void check(const Router& router, std::size_t tokens, std::uint64_t seed = 1, float first = 1, std::size_t gap = 0) {
  on_device::batch<S> x(tokens, router.d_model(), seed);
  if (tokens != 0) {
    x.stored[0] = static_cast<S>(first);
    x.values(0, 0) = static_cast<float>(x.stored[0]);
  }
  const std::size_t experts = router.routed(), capacity = tokens * router.max_selected();
  const on_device::parameters parameters(router);
  on_device::routed device(tokens, experts, router.size(), capacity);
  on_device::route<S>(parameters.view, x, device, gap);
  auto unchecked = router;
  unchecked.set_on_non_finite(routing::non_finite::propagate);
  const on_device::on_host<Router> host(unchecked, x.values);
  INFO("tokens ", tokens, ", experts ", experts, ", seed ", seed);

  const auto logits = device.logits.download(), p = device.probabilities.download(),
             weights = device.weights.download();
  const auto offsets = device.offsets.download(), ids = device.experts_of.download();
  check_near(logits, vector_view<const float>(host.trace.logits().data(), tokens * experts), 2e-6 * router.d_model());
  REQUIRE(offsets[0] == 0);
  for (std::size_t t = 0; t < tokens; ++t) {
    INFO("token ", t);
    const vector_view<const float> z(logits.data() + t * experts, experts), row(p.data() + t * experts, experts);
    std::vector<float> expected_p(experts), scratch(routing::selection_scratch(router.selection_policy(), experts));
    router.score().function().forward(z, vector_view<float>(expected_p));
    check_near(row, expected_p, 2e-6);
    std::vector<index_t> chosen(experts);
    chosen.resize(
        routing::select_row(router.selection_policy(), row, vector_view<index_t>(chosen), vector_view<float>(scratch)));
    std::ranges::sort(chosen);
    std::vector<float> w(chosen.size());
    if (!chosen.empty())
      router.weighting_policy().forward(z, row, vector_view<const index_t>(chosen), vector_view<float>(w));
    if (std::ranges::any_of(row, [](float v) { return std::isnan(v); }))
      std::ranges::fill(w, not_a_number);
    for (std::size_t j = experts; j < router.size(); ++j)
      chosen.push_back(static_cast<index_t>(j));
    w.resize(chosen.size());
    router.shared_policy().forward(
        x.values.row(t), vector_view<float>(w).subview(w.size() - (router.size() - experts), router.size() - experts));
    REQUIRE(offsets[t + 1] - offsets[t] == chosen.size());
    CHECK(std::vector<index_t>(ids.begin() + offsets[t], ids.begin() + offsets[t + 1]) == chosen);
    check_near(std::vector<float>(weights.begin() + offsets[t], weights.begin() + offsets[t + 1]), w, 5e-6);
  }
  // The batches are far from ties, so that rounding changes no choice.
  std::size_t same = 0;
  for (std::size_t t = 0; t < tokens; ++t)
    same += std::ranges::equal(host.assigned.experts_of(t),
                               vector_view<const index_t>(ids.data() + offsets[t], offsets[t + 1] - offsets[t]));
  CHECK(same == tokens);
  const auto status = device.raised();
  CHECK(status.entries_needed == 0);
  CHECK(status.invalid_choice == 0);
  CHECK(status.non_finite_logit == (std::isfinite(first) ? 0 : 1));

  if (same == tokens) {
    const auto equal = [](const std::vector<index_t>& a, vector_view<const index_t> b) {
      return std::equal(b.begin(), b.end(), a.begin());
    };
    CHECK(equal(device.plan_offsets.download(), host.plan.offsets()));
    CHECK(equal(device.plan_tokens.download(), host.plan.tokens()));
    CHECK(equal(device.plan_entries.download(), host.plan.entries()));
    CHECK(equal(device.plan_slots.download(), host.plan.slots()));
    CHECK(equal(device.tokens_per_expert.download(), host.trace.tokens_per_expert()));
  }
}

template <class Router> Router drawn(Router router, std::uint64_t seed = 7) {
  router.initialize(hmoe::seed{seed}, 0, {.router_stddev = 0.3});
  return router;
}

} // namespace

TEST_CASE("presets") {
  namespace presets = routing::presets;
  for (const std::size_t tokens : {0, 1, 37}) {
    check(drawn(presets::mixtral<float>{24, 8, 2}), tokens);
    check<bfloat16>(drawn(presets::qwen2_moe<float>{40, 60, 4}), tokens);
    auto gpt_oss = drawn(presets::gpt_oss<float>{17, 32, 4});
    fill_normal(gpt_oss.score().bias(), 0.5, seed{5}, 0);
    check<hmoe::half>(gpt_oss, tokens, 2, 0.5F, 3);
    check(drawn(presets::llama4<float>{33, 16, 1}), tokens);
    check(drawn(presets::hmoe_top_p<float>{64, 8, 0.6}), tokens);
    auto v3 = drawn(
        presets::deepseek_v3<float>{32, 64, {64, {.groups = 8, .kept = 4, .k = 8}}, {.factor = 2.5, .inner = {1e-20}}});
    fill_normal(v3.selection_policy().bias(), 0.1, seed{6}, 0);
    check<bfloat16>(v3, tokens, 3);
  }
}

TEST_CASE("scores, selections and weightings that warps know") {
  for (const std::size_t experts : {1, 5, 33, 200}) {
    check(drawn(routing::router<routing::linear<float>, routing::threshold, routing::raw>{
              16, experts, 0.6 / static_cast<double>(experts)}),
          9);
    check(drawn(routing::router<routing::linear<float, routing::sigmoid>, routing::top_k<>, routing::equal_weights>{
              16, experts, std::min<std::size_t>(experts, 3)}),
          9);
    check(drawn(routing::router<routing::linear<float, routing::relu>, routing::positive, routing::raw>{16, experts}),
          9);
    check(drawn(routing::router<routing::linear<float, routing::sqrt_softplus>, routing::top_k<1>,
                                routing::scaled<routing::renormalized>>{16, experts, {}, {.factor = 3}}),
          9);
    check(drawn(routing::router<routing::linear<float>, routing::cumulative_threshold, routing::renormalized,
                                routing::always_on>{
              16, experts, {0.4}, {.epsilon = 0.5, .use = routing::epsilon_use::clamped}, {2}}),
          9);
  }
  check(drawn(routing::router<routing::linear<float>, routing::top_k<>, routing::renormalized_without_last>{8, 6, {3}}),
        20);
  check(drawn(routing::router<routing::linear<float>, routing::top_k<>, routing::softmax_over_selected,
                              routing::sigmoid_gated<float>>{
            routing::linear<float>{8, 6}, {3}, {}, routing::sigmoid_gated<float>{8, 3}}),
        20);
}

TEST_CASE("infinite and NaN tokens show in the output and in the status [race]") {
  for (const float bad : {std::numeric_limits<float>::infinity(), not_a_number}) {
    check(drawn(routing::presets::hmoe_top_p<float>{8, 6, 0.6}), 5, 1, bad);
    check(drawn(routing::presets::mixtral<float>{8, 6, 2}), 5, 1, bad);
    check(drawn(routing::presets::gpt_oss<float>{8, 6, 2}), 5, 1, bad);
    check(drawn(routing::presets::qwen2_moe<float>{8, 6, 2}), 5, 1, bad);
    // Weights that do not look at probabilities must show it, too.
    check(drawn(routing::router<routing::linear<float>, routing::top_k<>, routing::equal_weights>{8, 6, {2}}), 5, 1,
          bad);
  }
}

TEST_CASE("a token's bits do not depend on its batch") {
  const auto router = drawn(routing::presets::qwen2_moe<float>{50, 40, 4});
  const on_device::parameters parameters(router);
  const on_device::batch<float> all(45, 50, 4);
  on_device::routed whole(45, 40, 41, 45 * 5), single(1, 40, 41, 5);
  on_device::route(parameters.view, all, whole);
  on_device::batch<float> one(1, 50, 4);
  one.stored.assign(all.stored.begin() + 44 * 50, all.stored.end());
  on_device::route(parameters.view, one, single);
  const auto logits = whole.logits.download(), weights = whole.weights.download();
  CHECK(single.logits.download() == std::vector<float>(logits.end() - 40, logits.end()));
  CHECK(single.weights.download() == std::vector<float>(weights.end() - 5, weights.end()));
}

namespace {

/// `logits` [tokens × experts] as the parts of d give them, in blocks for each part or for each group.
template <class S> struct projected {
  projected(const on_device::batch<S>& x, const matrix<float>& weight, std::size_t first, std::size_t tokens,
            bool by_part)
      : experts(weight.rows()) {
    const std::size_t d = weight.cols();
    const std::vector<float> weights(weight.data(), weight.data() + weight.size());
    const on_device::array<S> device_x(
        std::vector<S>(x.stored.data() + first * d, x.stored.data() + (first + tokens) * d));
    const on_device::array<float> device_weight(weights), out(tokens * experts);
    kernels::logit_parts parts = kernels::logit_parts::of(tokens, experts, d);
    parts.by_part = by_part;
    const on_device::array<float> sums(tokens * experts * parts.sums());
    const auto columns = static_cast<int>(experts);
    const auto read =
        kernels::launch_projection<S>({device_x.data(), d, static_cast<int>(tokens), static_cast<int>(d)},
                                      {device_weight.data(), nullptr, columns, columns, static_cast<int>(d)}, parts,
                                      nullptr, sums.data(), nullptr, nullptr);
    kernels::launch{"write_logits", nullptr, dim3(static_cast<unsigned>(tokens)),
                    kernels::sum_threads}(kernels::write_logits<kernels::sum_threads>, read, out.data());
    kernels::require_cuda(cudaDeviceSynchronize(), "projection");
    logits = out.download();
  }
  std::size_t experts;
  std::vector<float> logits;
};

/// Like 1.5, with low parts of one sign, so that a product of parts that is missing shows in the sum.
float with_low_part(std::size_t i) { return 1.0F + static_cast<float>(i * 37 % 1024) * 0x1p-10F + 0x1.9p-12F; }

template <class S> void check_bound(std::size_t d, bool aimed) {
  constexpr std::size_t tokens = 3, experts = 21;
  on_device::batch<S> x(tokens, d, 3);
  matrix<float> weight(experts, d);
  fill_normal(vector_view<float>(weight.data(), weight.size()), 1.0, seed{4}, 0);
  if (aimed) {
    for (std::size_t i = 0; i < x.stored.size(); ++i)
      x.values.data()[i] = static_cast<float>(x.stored[i] = static_cast<S>(with_low_part(i)));
    for (std::size_t i = 0; i < weight.size(); ++i)
      weight.data()[i] = with_low_part(i + 5);
  }
  CAPTURE(d);
  CAPTURE(aimed);
  const projected<S> result(x, weight, 0, tokens, true);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t j = 0; j < experts; ++j) {
      double sum = 0, size = 0;
      for (std::size_t c = 0; c < d; ++c) {
        const double product = double{x.values(t, c)} * double{weight(j, c)};
        sum += product;
        size += std::abs(product);
      }
      const double bound = (160 + static_cast<double>(d) / 2048) * 0x1p-23 * size;
      if (const double error = std::abs(double{result.logits[t * experts + j]} - sum); !(error <= bound)) {
        CHECK_MESSAGE(false, "token ", t, ", column ", j, ": error ", error, ", bound ", bound);
        return;
      }
    }
  CHECK(result.logits.size() == tokens * experts);
}

} // namespace

TEST_CASE("logits are within the bound of exact sums") {
  for (const std::size_t d : {1, 7, 128, 130, 1033, 2176})
    for (const bool aimed : {false, true}) {
      check_bound<float>(d, aimed);
      check_bound<bfloat16>(d, aimed);
      check_bound<hmoe::half>(d, aimed);
    }
}

TEST_CASE("a logit has the same bits by parts and by groups, in small tiles and large [race]") {
  const auto check_bits = [](auto zero, std::size_t d, std::size_t experts) {
    using S = decltype(zero);
    constexpr std::size_t tokens = 70; // more than the small tile is for
    const on_device::batch<S> x(tokens, d, 5);
    matrix<float> weight(experts, d);
    fill_normal(vector_view<float>(weight.data(), weight.size()), 1.0, seed{6}, 0);
    const auto all = projected<S>(x, weight, 0, tokens, false).logits;
    CHECK(projected<S>(x, weight, 0, tokens, true).logits == all);
    for (const bool by_part : {false, true})
      for (const std::size_t first : {0, 37, 69}) {
        const std::size_t count = first == 37 ? 20 : 1;
        const auto some = projected<S>(x, weight, first, count, by_part).logits;
        CHECK(some == std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(first * experts),
                                         all.begin() + static_cast<std::ptrdiff_t>((first + count) * experts)));
      }
  };
  check_bits(0.0F, 1300, 5);
  check_bits(bfloat16{}, 1290, 5);
}

TEST_CASE("the memory for fewer tokens is never more than for more") {
  const auto router = routing::presets::qwen2_moe<float>{1500, 40, 4};
  const on_device::parameters parameters(router);
  CHECK(kernels::logit_parts::of(64, 41, 1500).by_part);
  CHECK(!kernels::logit_parts::of(5000, 41, 1500).by_part);
  std::size_t before = 0;
  for (std::size_t tokens = 0; tokens < 5000; ++tokens) {
    const std::size_t bytes = kernels::router_forward_bytes(parameters.view, tokens);
    const kernels::logit_parts parts = kernels::logit_parts::of(tokens, 41, 1500);
    REQUIRE(bytes >= before);
    REQUIRE(kernels::logit_parts::values(tokens, 41, 1500) >= tokens * 41 * parts.sums());
    before = bytes;
  }
}
