// SPDX-License-Identifier: MIT
// What moves a router between steps, on the device beside the host: the p of top_p, the λ of ReMoE, selection biases.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/controllers.cuh>
#include <hmoe/backends/cuda/losses.cuh>
#include <hmoe/routing/presets.hpp>

#include "routed.cuh"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <utility>
#include <vector>

using namespace hmoe;
namespace kernels = hmoe::backends::cuda_detail;

namespace {

constexpr unsigned threads = kernels::loss_threads;

template <class Router> Router drawn(Router router) {
  router.initialize(seed{3}, 0, {.router_stddev = 0.4});
  return router;
}

TEST_CASE("The p of top_p moves as the host's, and the next pass reads it [race]") {
  constexpr std::size_t tokens = 17, experts = 6;
  auto router = drawn(routing::top_p_router<float>{8, experts, 0.4});
  const on_device::batch<float> x(tokens, 8, 2);
  const on_device::parameters parameters(router);
  const backends::cuda_context gpu;
  const routing::top_p_controller::options by{.target = 4, .start = 0.4, .proportional = 0.1, .integral = 0.2};
  backends::cuda_top_p_controller controller(gpu, by);
  routing::top_p_controller host(by);
  double before = 0;
  for (int step = 0; step < 4; ++step) {
    on_device::routed device(tokens, experts, experts, tokens * experts);
    on_device::route(parameters.view, x, device);
    router.selection_policy().p = host.p();
    const on_device::on_host reference(router, x.values);
    REQUIRE(device.tokens_per_expert.download() == std::vector<index_t>(reference.trace.tokens_per_expert().begin(),
                                                                        reference.trace.tokens_per_expert().end()));
    kernels::launch{"move_top_p", gpu.stream(), 1, threads}(
        kernels::move_top_p<threads>, device.tokens_per_expert.data(), index_t{experts}, index_t{tokens}, by,
        controller.state(), reinterpret_cast<double*>(parameters.block.data() + (parameters.block.size() - 16)));
    before = host.p();
    host.update(reference.trace);
    const auto now = controller.read(gpu);
    CHECK(now.p() == doctest::Approx(host.p()).epsilon(1e-14));
    CHECK(now.sum() == doctest::Approx(host.sum()).epsilon(1e-14));
    controller.restore(gpu, host.p(), host.sum()); // no bit apart in the next round
    // Weights, then p: what comes back is what the device has.
    const auto block = parameters.block.download();
    kernels::unpack_router(block.data(), router);
    CHECK(router.selection_policy().p == now.p());
  }
  CHECK(before > 0.5);
  CHECK_THROWS_AS(controller.restore(gpu, 2, 0), error);
}

TEST_CASE("ReMoE: the L1 loss with its lambda on the device, and the controller") {
  constexpr std::size_t tokens = 700, experts = 5;
  using remoe = routing::router<routing::linear<float, routing::relu>, routing::positive, routing::raw>;
  const auto router = drawn(remoe{8, experts});
  const on_device::batch<float> x(tokens, 8, 2);
  const on_device::parameters parameters(router);
  on_device::routed device(tokens, experts, experts, tokens * experts);
  on_device::route(parameters.view, x, device);
  on_device::on_host reference(router, x.values);
  const auto probabilities = device.probabilities.download();
  std::copy(probabilities.begin(), probabilities.end(), reference.trace.probabilities().data());
  const std::vector<std::size_t> widths(experts, 4);
  const on_device::array<index_t> device_widths(std::vector<index_t>(experts, 4));
  const kernels::routed_batch_arrays batch{device.trace, device.assigned, device.plan, device_widths.data(), 4};

  const backends::cuda_context gpu;
  backends::cuda_sparsity_controller controller(gpu, experts, 2, 0.5, 1.25);
  losses::sparsity_controller host(experts, 2, 0.5, 1.25);
  const auto evaluate = [&](const auto& aux) {
    const on_device::array<double> value(1);
    const on_device::array<std::byte> workspace(kernels::evaluate_losses_bytes(aux, tokens, experts));
    kernels::require_cuda(cudaMemset(device.d_probabilities.data(), 0, tokens * experts * sizeof(float)), "clearing");
    kernels::evaluate_losses(aux, batch, value.data(), workspace.data(), gpu.stream());
    gpu.synchronize();
    return value.download()[0];
  };
  const auto check = [&](const auto& aux, const losses::adaptive_l1& loss, double factor) {
    reference.trace.clear_gradients();
    routed_batch<float> of_host{reference.trace, reference.assigned, widths};
    const double expected = factor * loss.evaluate(of_host);
    CHECK(expected > 0);
    CHECK(evaluate(aux) == doctest::Approx(expected).epsilon(1e-12));
    const auto gradient = device.d_probabilities.download();
    for (std::size_t i = 0; i < gradient.size(); ++i)
      REQUIRE(gradient[i] == doctest::Approx(reference.trace.d_probabilities().data()[i]).epsilon(1e-6));
  };
  check(objective{losses::adaptive_l1{0.3, 2, true}}, {0.3, 2, true}, 1);
  check(objective{losses::adaptive_l1{0.3, 2, false}}, {0.3, 2, false}, 1);
  for (int step = 0; step < 2; ++step) {
    check(objective{controller.loss()}, host.loss(), host.lambda()); // its value is λ L
    for (int round = 0; round < 2; ++round) {
      kernels::launch{"count_sparsity", gpu.stream(), 3, threads}(kernels::count_sparsity<threads>, device.trace,
                                                                  controller.state());
      host.add(reference.trace);
    }
    kernels::launch{"move_lambda", gpu.stream(), 1, 1}(kernels::move_lambda<1>, controller.state(),
                                                       controller.wanted_sparsity(), controller.factor());
    host.update();
    CHECK(controller.read_lambda(gpu) == host.lambda());
    CHECK(host.lambda() != 0.5);
  }
}

TEST_CASE("Biases move by the host's formulas, bit for bit") {
  const backends::cuda_context gpu;
  std::vector<index_t> tokens;
  std::vector<double> flops, load(300), weighted(300);
  for (index_t e = 0; e < 300; ++e) {
    tokens.push_back(e % 7 == 0 ? 100 : 93 + e * 5 % 15);
    flops.push_back(1e9 + 1e6 * e);
  }
  routing::load_in_tokens(vector_view<const index_t>(tokens), vector_view<double>(load));
  routing::load_in_flops(vector_view<const index_t>(tokens), vector_view<const double>(flops),
                         vector_view<double>(weighted));
  const on_device::array<index_t> device_tokens(tokens);
  const on_device::array<double> device_flops(flops);
  for (const bool by_flops : {false, true}) {
    const vector_view<const double> of_host(by_flops ? weighted : load);
    const on_device::array<double> device_load(std::vector<double>(300));
    kernels::launch{"add_load", gpu.stream(), 1, threads}(kernels::add_load<threads>, device_tokens.data(),
                                                          by_flops ? device_flops.data() : nullptr, device_load.data(),
                                                          300U);
    std::vector<float> bias(300);
    const on_device::array<float> device_bias(bias);
    for (const index_t moving : {300U, 290U}) {
      routing::update_bias_by_sign(vector_view<float>(bias), of_host, 1e-3, moving);
      kernels::launch{"sign", gpu.stream(), 1, threads}(kernels::move_bias_by_sign<threads>, device_bias.data(),
                                                        device_load.data(), moving, 1e-3);
      routing::update_bias_in_proportion(vector_view<float>(bias), of_host, 1e-2, 1.0 / 290, moving);
      kernels::launch{"proportion", gpu.stream(), 1, threads}(kernels::move_bias_in_proportion<threads>,
                                                              device_bias.data(), device_load.data(), 300U, moving,
                                                              1e-2, 1.0 / 290);
    }
    gpu.synchronize();
    CHECK(device_bias.download() == bias);
  }
}

} // namespace
