// SPDX-License-Identifier: MIT
// expect: hmoe::expert_set: an element of Banks cannot be copied and assigned
// alone
#include <hmoe/experts/expert_set.hpp>

using namespace hmoe;

struct constant_scale {
  using value_type = float;
#ifdef HMOE_MUST_COMPILE
  float scale = 2;
#else
  const float scale = 2;
#endif
  static std::size_t d_model() { return 4; }
  void forward(matrix_view<const float>, matrix_view<float>) const {}
  void backward(matrix_view<const float>, matrix_view<const float>, matrix_view<float>, constant_scale&) const {}
  template <class Visitor> void visit_parameters(Visitor&&) {}
};

expert_set experts{constant_scale{}};
