// SPDX-License-Identifier: MIT
// An expert kind of your own beside SwiGLU experts: forward, backward and visit_parameters.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/expert_laws.hpp>

#include <cmath>
#include <iostream>
#include <utility>

using namespace hmoe;

/// y_i = a_i · sin(x_i) + b_i: two parameters per value, d times cheaper than any matrix.
template <class T> class wave {
public:
  using value_type = T;
  explicit wave(std::size_t d_model) : amplitude_(1, d_model), bias_(1, d_model) {}
  [[nodiscard]] std::size_t d_model() const { return amplitude_.cols(); }

  void forward(matrix_view<const T> x, matrix_view<T> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < d_model(); ++i)
        y(r, i) = amplitude_(0, i) * std::sin(x(r, i)) + bias_(0, i);
  }
  /// dx is written, gradients are added to.
  void backward(matrix_view<const T> x, matrix_view<const T> dy, matrix_view<T> dx, wave& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t i = 0; i < d_model(); ++i) {
        dx(r, i) = dy(r, i) * amplitude_(0, i) * std::cos(x(r, i));
        gradients.amplitude_(0, i) += dy(r, i) * std::sin(x(r, i));
        gradients.bias_(0, i) += dy(r, i);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"amplitude"}, amplitude_.view());
    visit(parameter_info{"bias", /*decay=*/false}, bias_.view());
  }

private:
  matrix<T> amplitude_, bias_;
};

int main() {
  // Gradients against finite differences, in double, and everything else that an expert promises.
  const testing::report laws = testing::check_expert(wave<double>{6});
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n") << laws.text();

  const std::size_t d = 32;
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{d, {8, 16, 32}}, wave<float>{d}},
                  routing::top_k_router<float>{d, 4, 2}};
  layer.initialize(seed{1}, {.router_stddev = 0.5});

  matrix<float> x(500, d), y(500, d), dx(500, d);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  const context cpu{backends::reference{}, executors::openmp{}};
  auto tape = layer.make_tape(x.rows());
  auto gradients = layer.make_gradients();
  layer.forward(cpu, x, y, tape);
  layer.backward(cpu, tape, y, dx, gradients);

  const layer_cost cost = layer.cost();
  for (std::size_t e = 0; e < layer.size(); ++e)
    std::cout << "expert " << e << ": " << std::as_const(tape).trace().tokens_per_expert()[e] << " tokens, "
              << cost.experts[e].parameters << " parameters, " << cost.experts[e].flops_per_token
              << " FLOPs per token\n";
  return laws.ok() ? 0 : 1;
}
