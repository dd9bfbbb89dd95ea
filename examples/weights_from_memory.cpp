// SPDX-License-Identifier: MIT
// Fills a layer with weights that are in memory already, as a checkpoint or another framework has them, and reads what
// comes out: the views of a bank and of a router are rows of numbers.
#include <hmoe/hmoe.hpp>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>
#include <vector>

using namespace hmoe;

/// What a checkpoint of two SwiGLU experts holds: row-major tensors, each row an output of the projection.
struct stored_expert {
  std::vector<float> gate; ///< [width × d_model]
  std::vector<float> up;   ///< [width × d_model]
  std::vector<float> down; ///< [d_model × width]
};

/// Copies a row-major tensor into a view of the same shape, or says what does not fit.
void copy(const std::vector<float>& from, matrix_view<float> to) {
  require(from.size() == to.rows() * to.cols(), "a tensor of ", from.size(), " values cannot fill ", to.rows(), " x ",
          to.cols());
  for (std::size_t r = 0; r < to.rows(); ++r)
    std::copy_n(from.data() + r * to.cols(), to.cols(), to.row(r).begin());
}

int main() {
  const std::size_t d_model = 2;
  const std::vector<stored_expert> stored{
      {.gate = {1, 0, 0, 1, 1, 1}, .up = {1, 1, 2, 0, 0, 2}, .down = {1, 0, 1, 0, 1, 1}},
      {.gate = {0.5F, 0.5F}, .up = {1, -1}, .down = {3, 1}}};
  const std::vector<float> router_weight{4, 0, 0, 4}; // [experts × d_model]

  experts::glu_bank<float, experts::silu> bank{d_model, {3, 1}}; // widths as the tensors have them
  for (std::size_t e = 0; e < stored.size(); ++e) {
    copy(stored[e].gate, bank.gate(e));
    copy(stored[e].up, bank.up(e));
    copy(stored[e].down, bank.down(e));
  }
  routing::top_k_router<float> router{d_model, bank.size(), /*k=*/1};
  copy(router_weight, router.score().weight());
  const moe_layer layer{expert_set{std::move(bank)}, std::move(router)};

  matrix<float> x(1, d_model), y(1, d_model);
  x(0, 0) = 0.5F;
  x(0, 1) = 2.0F; // nearer to the router's second row
  layer.forward(context{backends::reference{}}, x, y);

  // The same by hand: silu(gate · x) · (up · x), times down; with k = 1 the weight is 1.
  const double z = 0.5 * 0.5 + 0.5 * 2.0, activated = z / (1 + std::exp(-z)) * (0.5 - 2.0);
  std::cout << "y = " << y(0, 0) << ", " << y(0, 1) << "; by hand " << 3 * activated << ", " << activated << "\n";
  return std::abs(y(0, 0) - 3 * activated) < 1e-5 && std::abs(y(0, 1) - activated) < 1e-5 ? 0 : 1;
}
