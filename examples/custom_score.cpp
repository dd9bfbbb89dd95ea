// SPDX-License-Identifier: MIT
// A score of your own: how a router makes logits of tokens, and what of their gradient reaches its parameters.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/router_laws.hpp>

#include <iostream>

using namespace hmoe;

/// z_i = −½ ‖x − c_i‖²: the nearer a token is to an expert's centre c_i, the higher its logit. With softmax these are
/// the responsibilities of a mixture of Gaussians. Parameters: centres [N×d].
template <float_or_double T> class nearest {
public:
  using value_type = T;
  nearest(std::size_t d_model, std::size_t experts) : centres_(experts, d_model) {}

  [[nodiscard]] std::size_t d_model() const { return centres_.cols(); }
  [[nodiscard]] std::size_t size() const { return centres_.rows(); }
  [[nodiscard]] static std::size_t saved_per_token() { return 0; } // backward reads x again
  [[nodiscard]] static routing::softmax function() { return {}; }

  template <class Context> void forward(const Context&, matrix_view<const T> x, router_trace<T>& trace) const {
    for (std::size_t t = 0; t < x.rows(); ++t)
      for (std::size_t e = 0; e < size(); ++e) {
        T sum = 0;
        for (std::size_t i = 0; i < d_model(); ++i)
          sum += (x(t, i) - centres_(e, i)) * (x(t, i) - centres_(e, i));
        trace.logits()(t, e) = -sum / 2;
      }
  }
  /// dx and gradients are added to: ∂z_e/∂x = c_e − x, ∂z_e/∂c_e = x − c_e.
  template <class Context>
  void backward(const Context&, matrix_view<const T> x, const router_trace<T>&, matrix_view<const T> d_logits,
                matrix_view<T> dx, nearest& gradients) const {
    for (std::size_t t = 0; t < x.rows(); ++t)
      for (std::size_t e = 0; e < size(); ++e)
        for (std::size_t i = 0; i < d_model(); ++i) {
          const T difference = x(t, i) - centres_(e, i);
          gradients.centres_(e, i) += d_logits(t, e) * difference;
          dx(t, i) -= d_logits(t, e) * difference;
        }
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.centres", /*decay=*/false}, centres_.view());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    fill_normal(vector_view<T>(centres_.data(), centres_.size()), options.router_stddev, key, stream);
  }

private:
  matrix<T> centres_;
};

int main() {
  routing::router checked{nearest<double>{6, 5}, routing::top_k<>{2}, routing::renormalized{}};
  checked.initialize(seed{1}, 0, {.router_stddev = 1.0});
  const testing::report laws = testing::check_router(checked);
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text());

  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{16, {8, 16, 24, 32}}},
                  routing::router{nearest<float>{16, 4}, routing::top_k<>{1}, routing::raw{}}};
  layer.initialize(seed{1}, {.router_stddev = 1.0});
  matrix<float> x(1000, 16), y(1000, 16);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  auto tape = layer.make_tape(x.rows());
  layer.forward(context{backends::reference{}}, x, y, tape);
  for (std::size_t e = 0; e < layer.size(); ++e)
    std::cout << "expert " << e << ": " << tape.trace().tokens_per_expert()[e] << " tokens\n";
  return laws.ok() ? 0 : 1;
}
