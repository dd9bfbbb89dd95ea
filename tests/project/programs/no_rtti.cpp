// SPDX-License-Identifier: MIT
// Without RTTI any_expert still tells experts apart, and errors are exceptions.
// flags: -fno-rtti
// prints: any_expert: the gradients of a copying<1> hold an expert of another kind
#include <hmoe/hmoe.hpp>

#include <cstdio>

using namespace hmoe;

template <int Kind> struct copying {
  using value_type = float;
  [[nodiscard]] static std::size_t d_model() { return 2; }
  void forward(matrix_view<const float> x, matrix_view<float> y) const { y(0, 0) = x(0, 0); }
  void backward(matrix_view<const float>, matrix_view<const float> dy, matrix_view<float> dx, copying&) const {
    dx(0, 0) = dy(0, 0);
  }
  template <class Visitor> void visit_parameters(Visitor&&) {}
};

int main() {
  const experts::any_expert<float> held{copying<1>{}};
  experts::any_expert<float> same = held, other{copying<2>{}};
  if (held.get_if<copying<1>>() == nullptr || held.get_if<copying<2>>() != nullptr)
    return 1;
  const matrix<float> x(1, 2);
  matrix<float> y(1, 2);
  held.backward(x, x, y, same);
  try {
    held.backward(x, x, y, other);
  } catch (const error& e) {
    std::puts(e.what());
    return 0;
  }
  return 2;
}
