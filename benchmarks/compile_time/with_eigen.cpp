// SPDX-License-Identifier: MIT
// One layer on the Eigen backend.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/hmoe.hpp>

int main() {
  using namespace hmoe;
  experts::glu_bank<float, experts::silu> bank{64, {32, 64, 96}};
  moe_layer layer{expert_set{std::move(bank)}, routing::top_k_router<float>{64, 3, 2}};
  layer.initialize(seed{1});
  matrix<float> x(4, 64), y(4, 64);
  layer.forward(context{backends::eigen{}}, x, y);
}
