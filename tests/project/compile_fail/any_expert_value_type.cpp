// SPDX-License-Identifier: MIT
// expect: hmoe::experts::any_expert: the expert's value_type differs from T: use any_expert<float> for an expert of float, any_expert<double> for one of double
#include <hmoe/experts/any_expert.hpp>

using namespace hmoe;

struct copying_expert {
  using value_type = float;
  [[nodiscard]] static std::size_t d_model() { return 3; }
  void forward(matrix_view<const float> x, matrix_view<float> y) const { copy(x, y); }
  void backward(matrix_view<const float>, matrix_view<const float> dy, matrix_view<float> dx, copying_expert&) const {
    copy(dy, dx);
  }
  template <class Visitor> void visit_parameters(Visitor&&) {}
  static void copy(matrix_view<const float> from, matrix_view<float> to) {
    for (std::size_t r = 0; r < to.rows(); ++r)
      for (std::size_t c = 0; c < to.cols(); ++c)
        to(r, c) = from(r, c);
  }
};

#ifdef HMOE_MUST_COMPILE
using held = experts::any_expert<float>;
#else
using held = experts::any_expert<double>;
#endif

inline const held plug_in{copying_expert{}};
