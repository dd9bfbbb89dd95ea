// SPDX-License-Identifier: MIT
// An optimiser of your own: a class that is made for a list of parameters and steps through it.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/optimizer_laws.hpp>

#include <cmath>
#include <iostream>
#include <vector>

using namespace hmoe;

/// Lion (Chen et al. 2023, arXiv 2302.06675): θ ← θ − η (sign(β₁ m + (1 − β₁) g) + λ θ), m ← β₂ m + (1 − β₂) g. One
/// number of state per parameter where AdamW has two. λ only where a parameter asks for decay.
template <float_or_double T> class lion {
public:
  struct options_type {
    double beta1 = 0.9, beta2 = 0.99, weight_decay = 0;
  };
  lion(const options_type& options, const std::vector<parameter<T>>& list) : options_(options) {
    for (const parameter<T>& p : list)
      momentum_.emplace_back(p.value.size(), T(0));
  }

  void step(const std::vector<parameter<T>>& list, double learning_rate) {
    require(std::isfinite(learning_rate), "lion with a learning rate of ", learning_rate, ": it must be finite");
    require(list.size() == momentum_.size(), "lion was made for ", momentum_.size(), " tensors, given are ",
            list.size());
    for (std::size_t i = 0; i < list.size(); ++i)
      require(list[i].value.size() == momentum_[i].size() && list[i].gradient.size() == momentum_[i].size(),
              "lion: tensor ", i, " has ", list[i].value.size(), " values instead of ", momentum_[i].size());
    for (std::size_t i = 0; i < list.size(); ++i)
      for (std::size_t j = 0; j < momentum_[i].size(); ++j) {
        const auto g = static_cast<double>(list[i].gradient[j]), m = static_cast<double>(momentum_[i][j]);
        const auto value = static_cast<double>(list[i].value[j]);
        const double mixed = options_.beta1 * m + (1 - options_.beta1) * g;
        const double direction = (mixed > 0 ? 1 : 0) - (mixed < 0 ? 1 : 0);
        const double decay = list[i].decay ? options_.weight_decay * value : 0;
        list[i].value[j] = static_cast<T>(value - learning_rate * (direction + decay));
        momentum_[i][j] = static_cast<T>(options_.beta2 * m + (1 - options_.beta2) * g);
      }
  }

private:
  options_type options_;
  std::vector<std::vector<T>> momentum_;
};

int main() {
  const testing::report laws =
      testing::check_optimizer<float>([](const auto& list) { return lion<float>({.weight_decay = 1e-2}, list); });
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text());

  // A layer learns to return what it gets.
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{8, {8, 16, 24, 32}}},
                  routing::top_k_router<float>{8, 4, 2}};
  layer.initialize(seed{1});
  const context cpu{backends::reference{}};
  matrix<float> x(64, 8), y(64, 8), dy(64, 8), dx(64, 8);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  auto gradients = layer.make_gradients();
  std::vector<parameter<float>> list;
  layer.append_parameters(gradients, list);
  lion<float> optimizer({}, list);
  float first = 0, last = 0;
  for (int step = 0; step < 200; ++step) {
    layer.forward(cpu, x, y, tape);
    last = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      dy.data()[i] = (y.data()[i] - x.data()[i]) / static_cast<float>(y.size());
      last += dy.data()[i] * (y.data()[i] - x.data()[i]) / 2;
    }
    first = step == 0 ? last : first;
    gradients.set_zero();
    layer.backward(cpu, tape, dy, dx, gradients);
    optimizer.step(list, 3e-3);
  }
  std::cout << "loss: from " << first << " to " << last << "\n";
  return laws.ok() && last < first / 2 ? 0 : 1;
}
