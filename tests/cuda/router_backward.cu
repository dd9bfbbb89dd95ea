// SPDX-License-Identifier: MIT
// The router's backward pass on the device against the host's, from the same weights' and sinks' gradients.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/router_backward.cuh>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>

#include "routed.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

using namespace hmoe;
namespace kernels = hmoe::backends::cuda_detail;

/// Not one of the built-in functions, and not elementwise: p_i = z_i² / Σ z_j².
struct squares {
  template <class T> HMOE_HOST_DEVICE static void forward(vector_view<const T> z, vector_view<T> p) noexcept {
    T sum = 0;
    for (const T value : z)
      sum += value * value;
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = z[i] * z[i] / sum;
  }
  /// ∂L/∂z_i = 2 z_i (dp_i − Σ_j dp_j p_j) / Σ z_j²
  template <class T>
  HMOE_HOST_DEVICE static void backward(vector_view<const T> z, vector_view<const T> p, vector_view<const T> d_p,
                                        vector_view<T> d_z) noexcept {
    T sum = 0, dot = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      sum += z[i] * z[i];
      dot += d_p[i] * p[i];
    }
    for (std::size_t i = 0; i < z.size(); ++i)
      d_z[i] += 2 * z[i] * (d_p[i] - dot) / sum;
  }
};

namespace {

std::vector<float> normal(std::size_t count, std::uint64_t seed) {
  std::vector<float> values(count);
  fill_normal(vector_view<float>(values), 1.0, hmoe::seed{seed}, 0);
  return values;
}
void check_near(const char* what, vector_view<const float> a, vector_view<const float> b) {
  REQUIRE(a.size() == b.size());
  double largest = 1e-30;
  for (const float value : b)
    largest = std::max(largest, std::abs(double{value}));
  for (std::size_t i = 0; i < b.size(); ++i)
    if (!(std::abs(double{a[i]} - double{b[i]}) <= 1e-5 * largest)) {
      CHECK_MESSAGE(false, std::string(what), " ", i, ": ", a[i], " instead of ", b[i]);
      return;
    }
}

/// dx and gradients are the host's, on top of what was there before. `sinks`: whether losses have left something.
template <class S = float, class Router> void check(Router router, std::size_t tokens, bool sinks = true) {
  router.initialize(seed{3}, 0, {.router_stddev = 0.4});
  const std::size_t d = router.d_model(), experts = router.routed(), capacity = tokens * router.max_selected();
  const std::size_t dx_stride = d + 2;
  const on_device::batch<S> x(tokens, d, 2);
  const on_device::parameters parameters(router);
  on_device::routed device(tokens, experts, router.size(), capacity);
  on_device::route<S>(parameters.view, x, device);
  on_device::on_host<Router> host(router, x.values);
  REQUIRE(host.assigned.size() == device.offsets.download()[tokens]);
  INFO("tokens ", tokens, ", experts ", experts, ", sinks ", sinks);

  const auto d_weights = normal(capacity, 4), d_logits = normal(tokens * experts, 5), d_p = normal(tokens * experts, 6),
             dx_before = normal(tokens * dx_stride, 7);
  if (sinks) {
    std::copy(d_logits.begin(), d_logits.end(), host.trace.d_logits().data());
    std::copy(d_p.begin(), d_p.end(), host.trace.d_probabilities().data());
  }
  matrix<float> dx(tokens, d);
  for (std::size_t t = 0; t < tokens; ++t)
    std::copy_n(dx_before.data() + t * dx_stride, d, dx.row(t).data());
  Router before = router;
  before.initialize(seed{8}, 0, {.router_stddev = 1});
  Router gradients = before;
  const context ctx{backends::reference{}};
  {
    const workspace::scope scope(ctx.workspace());
    router.backward(ctx, x.values.view(), std::as_const(host.trace), std::as_const(host.assigned),
                    vector_view<const float>(d_weights.data(), host.assigned.size()), dx.view(), gradients);
  }

  const on_device::array<S> device_x(x.stored);
  const on_device::array<float> device_d_weights(d_weights), sink_logits(d_logits), sink_p(d_p);
  auto trace = device.trace;
  trace.d_logits = sinks ? sink_logits.data() : nullptr;
  trace.d_probabilities = sinks ? sink_p.data() : nullptr;
  const on_device::array<std::byte> workspace(kernels::router_backward_bytes(parameters.view, tokens));
  std::vector<float> first_dx;
  std::vector<std::byte> first_block;
  for (int round = 0; round < 2; ++round) {
    const on_device::array<float> device_dx(dx_before);
    const on_device::array<std::byte> block(on_device::parameters<Router>::packed(before));
    kernels::router_backward<S>(parameters.view, device_x.data(), d, trace, device.assigned, device_d_weights.data(),
                                device_dx.data(), dx_stride, kernels::view_router_gradients(router, block.data()),
                                workspace.data(), nullptr);
    kernels::require_cuda(cudaDeviceSynchronize(), "backward");
    const auto result = device_dx.download();
    const auto result_block = block.download();
    if (round == 1) { // the same bits again
      CHECK(result == first_dx);
      CHECK(result_block == first_block);
      return;
    }
    first_dx = result;
    first_block = result_block;
    std::vector<float> rows(tokens * d);
    for (std::size_t t = 0; t < tokens; ++t) {
      std::copy_n(result.data() + t * dx_stride, d, rows.data() + t * d);
      CHECK(result[t * dx_stride + d] == dx_before[t * dx_stride + d]); // between the rows
    }
    check_near("dx", rows, vector_view<const float>(dx.data(), dx.size()));
    Router read = gradients;
    kernels::unpack_router(result_block.data(), read);
    Router added = gradients; // and by adding what came back to something else
    set_zero(added);
    kernels::add_router_gradients(result_block.data(), added);
    std::vector<std::pair<std::string, std::vector<float>>> expected;
    gradients.visit_parameters([&](const parameter_info& info, matrix_view<float> view) {
      expected.emplace_back(info.full_name(), std::vector<float>(view.data(), view.data() + view.size()));
    });
    for (Router* values : {&read, &added}) {
      std::size_t i = 0;
      values->visit_parameters([&](const parameter_info& info, matrix_view<float> view) {
        if (info.trained)
          check_near(expected[i].first.c_str(), vector_view<const float>(view.data(), view.size()), expected[i].second);
        ++i;
      });
      CHECK(i == expected.size());
    }
  }
}

} // namespace

TEST_CASE("presets") {
  namespace presets = routing::presets;
  for (const bool sinks : {false, true}) {
    check(presets::hmoe_top_p<float>{40, 8, 0.6}, 37, sinks);
    check<bfloat16>(presets::qwen2_moe<float>{33, 40, 4}, 20, sinks);
    check<hmoe::half>(presets::gpt_oss<float>{24, 32, 4}, 9, sinks);
    check(presets::llama4<float>{16, 6, 1}, 33, sinks);
    check(
        presets::deepseek_v3<float>{32, 16, {16, {.groups = 4, .kept = 2, .k = 3}}, {.factor = 2.5, .inner = {1e-20}}},
        21, sinks);
  }
  check(presets::hmoe_top_p<float>{8, 1, 0.6}, 1);
  check(presets::mixtral<float>{8, 3, 2}, 0);
  check(presets::mixtral<float>{133, 150, 2}, 70); // several tiles each way, and more columns than a part has terms
}

TEST_CASE("other score functions and weightings [race]") {
  check(routing::router<routing::linear<float, squares>, routing::top_k<>, routing::raw>{12, 5, {2}}, 10);
  check(routing::router<routing::linear<float, routing::sqrt_softplus>, routing::top_k<>, routing::renormalized>{12,
                                                                                                                 5,
                                                                                                                 {2}},
        10);
  check(routing::router<routing::linear<float, routing::relu>, routing::positive, routing::raw>{12, 5}, 10);
  check(
      routing::router<routing::linear<float>, routing::threshold, routing::equal_weights, routing::always_on>{
          12, 5, {0.3}, {}, {2}},
      10);
  check(
      routing::router<routing::linear<float>, routing::top_k<>, routing::renormalized_without_last,
                      routing::sigmoid_gated<float>>{
          routing::linear<float>{12, 5}, {2}, {}, routing::sigmoid_gated<float>{12, 3}},
      10);
}

TEST_CASE("sums over many tokens, in parts") {
  const auto parts = kernels::projection_scratch::sized(600, 9, 8).parts;
  CHECK(parts == 2);
  check(
      routing::router<routing::linear<float, routing::softmax, true>, routing::top_k<>, routing::renormalized,
                      routing::sigmoid_gated<float>>{
          routing::linear<float, routing::softmax, true>{8, 7}, {2}, {}, routing::sigmoid_gated<float>{8, 2}},
      600);
}

TEST_CASE("the memory for fewer tokens is never more than for more") {
  const auto router = routing::presets::mixtral<float>{200, 40, 2};
  const on_device::parameters parameters(router);
  for (std::size_t tokens = 0, before = 0; tokens < 12000; ++tokens) {
    const std::size_t bytes = kernels::router_backward_bytes(parameters.view, tokens);
    const auto parts = kernels::projection_scratch::sized(tokens, 40, 200).parts;
    REQUIRE(bytes >= before);
    REQUIRE((parts == 1 || kernels::projection_scratch::values(tokens, 40, 200) >= parts * 40 * 200));
    before = bytes;
  }
}
