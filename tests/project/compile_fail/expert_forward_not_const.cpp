// SPDX-License-Identifier: MIT
// expect: hmoe::expert_set: an element of Banks lacks forward: forward\(x, y\), const, for a single expert
// alone
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

using namespace hmoe;

struct nothing {
  using value_type = float;
  static std::size_t d_model() { return 4; }
#ifdef HMOE_MUST_COMPILE
  void forward(matrix_view<const float>, matrix_view<float>) const {}
#else
  void forward(matrix_view<const float>, matrix_view<float>) {}
#endif
  void backward(matrix_view<const float>, matrix_view<const float>, matrix_view<float>, nothing&) const {}
  template <class Visitor> void visit_parameters(Visitor&&) {}
};

void use(const matrix<float>& x, matrix<float>& y) {
  moe_layer layer{expert_set{nothing{}}, routing::top_k_router<float>{4, 1, 1}};
  layer.initialize(seed{1});
  layer.forward(context{backends::reference{}}, x, y);
}
