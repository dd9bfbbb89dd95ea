// SPDX-License-Identifier: MIT
// The layer of the HMoE paper's 0.4B model: one inference pass, one step of training.
#include <hmoe/backends/eigen.hpp>   // needs Eigen
#include <hmoe/execution/openmp.hpp> // needs -fopenmp
#include <hmoe/hmoe.hpp>

#include <iostream>
#include <utility>
#include <vector>

using namespace hmoe;

int main() {
  // Eight SwiGLU experts whose widths grow 9 : 11 : … : 23 and add up to 12,288.
  experts::glu_bank<float, experts::silu> bank{768,
                                               widths::arithmetic{.count = 8, .total = 12288, .first = 9, .last = 23}};
  routing::top_p_router<float> router{768, bank.size(), /*p=*/0.6};
  moe_layer layer{expert_set{std::move(bank)}, std::move(router), dispatch::sorted{}};
  layer.initialize(seed{42});

  const context cpu{backends::eigen{}, executors::openmp{}};
  matrix<float> x(32, 768), y(32, 768), dx(32, 768); // 32 tokens
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{1}, 0);
  layer.forward(cpu, x, y); // inference

  auto tape = layer.make_tape(x.rows()); // training
  auto gradients = layer.make_gradients();
  layer.forward(cpu, x, y, tape);
  const objective aux{losses::parameter_penalty{0.1}, losses::router_entropy{0.03}};
  const auto penalties = aux.evaluate(layer, tape);
  layer.backward(cpu, tape, /*dy=*/y, dx, gradients); // y is the gradient of ½‖y‖²; task and penalties together

  std::vector<parameter<float>> parameters;
  layer.append_parameters(gradients, parameters);
  training::adamw<float> optimizer{{}, parameters};
  optimizer.step(parameters, /*learning_rate=*/1e-4);

  const auto used = layer.cost().activated(std::as_const(tape).assignment());
  std::cout << used.experts << " of " << layer.size() << " experts and " << used.parameters / 1e6
            << " million parameters per token; auxiliary losses " << penalties.total() << "\n";
}
