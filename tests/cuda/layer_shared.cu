// SPDX-License-Identifier: MIT
// Layers with weights on the input and shared experts, and layers without matrix products. In half, see layer_kinds.cu.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "layer_checks.hpp"
#include "small_tiles.hpp"

using namespace cuda_checks;

namespace {

TEST_CASE("Weights on the input, a shared expert, and gpt-oss experts: Llama 4's way") {
  moe_layer host{expert_set{experts::gpt_oss_glu_bank<float>{10, {5, 12, 9}}, experts::constant_bank<float>{10},
                            experts::gpt_oss_glu_bank<float>{10, {6}}},
                 routing::presets::llama4<float>{10, 4, 1}};
  check_step<hmoe::half>(host, 23, 3e-3);
}

TEST_CASE("No expert has a hidden unit: losses that measure in widths refuse as on the host") {
  moe_layer host{expert_set{experts::constant_bank<float>{10}, experts::identity_bank<float>{10, 2}},
                 routing::top_k_router<float>{10, 3, 2}};
  check_step<hmoe::half>(host, 9, 3e-3, objective{losses::load_balance{0.1}});
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  const auto layer = backends::copy_to<hmoe::half>(gpu, host);
  for (const std::size_t tokens : {0U, 4U}) {
    const matrix<float> x = random_tokens<hmoe::half>(tokens, 10, 1);
    matrix<float> y(tokens, 10);
    auto tape = host.make_tape(tokens);
    host.forward(cpu, x, y, tape);
    backends::device_matrix<hmoe::half> device_y(tokens, 10);
    auto device_tape = layer.make_tape(tokens);
    layer.forward(gpu, to_device<hmoe::half>(gpu, x), device_y, device_tape);
    const objective penalty{losses::parameter_penalty{0.1}};
    const objective cost{losses::compute_cost{0.1}};
    const auto same = [&](const auto& aux) {
      const std::string text = support::error_of([&] { (void)aux.evaluate(host, tape); });
      CHECK(text.find("3 experts") != std::string::npos);
      CHECK(support::error_of([&] { (void)layer.evaluate(gpu, aux, device_tape); }) == text);
    };
    same(penalty);
    same(cost);
  }
}

} // namespace
