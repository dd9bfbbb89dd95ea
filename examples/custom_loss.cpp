// SPDX-License-Identifier: MIT
// An auxiliary loss of your own: a value, and its gradient added to the sinks of the trace.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/loss_laws.hpp>

#include <iostream>
#include <string_view>

using namespace hmoe;

/// L = N Σ_i (P̄_i − 1/N)² with P̄_i = (1/T) Σ_t P_{t,i}: how far the mean probabilities are from even, 0 where they are,
/// N − 1 where one expert has all.
struct even_probabilities {
  double coefficient = 1e-2;
  static constexpr std::string_view name = "even_probabilities";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    const auto p = batch.trace.probabilities();
    const auto d_p = batch.trace.d_probabilities();
    const auto tokens = static_cast<double>(p.rows()), experts = static_cast<double>(p.cols());
    double value = 0;
    for (std::size_t e = 0; e < p.cols() && p.rows() != 0; ++e) {
      double sum = 0;
      for (std::size_t t = 0; t < p.rows(); ++t)
        sum += static_cast<double>(p(t, e));
      const double excess = sum / tokens - 1 / experts;
      value += experts * excess * excess;
      for (std::size_t t = 0; t < p.rows(); ++t)
        d_p(t, e) += static_cast<T>(coefficient * 2 * experts * excess / tokens);
    }
    return value;
  }
};

int main() {
  const testing::report laws = testing::check_loss(even_probabilities{});
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text());

  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{16, {8, 16, 24, 32}}},
                  routing::top_k_router<float>{16, 4, 2}};
  layer.initialize(seed{1}, {.router_stddev = 0.5});
  const context cpu{backends::reference{}};
  matrix<float> x(200, 16), y(200, 16), dx(200, 16);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  auto gradients = layer.make_gradients();
  layer.forward(cpu, x, y, tape);
  const objective aux{even_probabilities{1e-2}, losses::z{1e-3}};
  const auto penalties = aux.evaluate(layer, tape); // before backward, which takes the sinks with it
  layer.backward(cpu, tape, /*dy=*/y, dx, gradients);
  std::cout << "even_probabilities: " << penalties.value("even_probabilities") << ", both: " << penalties.total()
            << "\n";
  return laws.ok() ? 0 : 1;
}
