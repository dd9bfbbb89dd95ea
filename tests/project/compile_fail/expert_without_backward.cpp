// SPDX-License-Identifier: MIT
// expect: hmoe::expert_set: an expert among Banks lacks backward\(x, dy, dx, gradients\)
#include <hmoe/experts/expert_set.hpp>

using namespace hmoe;

struct nothing {
  using value_type = float;
  static std::size_t d_model() { return 4; }
  void forward(matrix_view<const float>, matrix_view<float>) const {}
#ifdef HMOE_MUST_COMPILE
  void backward(matrix_view<const float>, matrix_view<const float>, matrix_view<float>, nothing&) const {}
#endif
  template <class Visitor> void visit_parameters(Visitor&&) {}
};

expert_set experts{nothing{}};
