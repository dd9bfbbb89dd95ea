// SPDX-License-Identifier: MIT
// expect: hmoe: the backend's activate does not fit: expected is `template <activation Activation> void
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

struct fast_activations : backends::reference {
#ifdef HMOE_MUST_COMPILE
  template <activation Activation, class T>
  static void activate(vector_view<const T> z, vector_view<T> a){
#else
  template <activation Activation> static void activate(vector_view<const float> z, vector_view<float> a) {
#endif
      experts::activate<Activation>(z, a);
}
}
;

void run(const expert_set<experts::mlp_bank<double, experts::relu>>& bank, matrix_view<const double> x,
         matrix_view<double> y) {
  const expert_rows<double> rows{.count = x.rows(), .x = x, .y = y};
  bank.forward_rows(context{fast_activations{}}, vector_view<const expert_rows<double>>(&rows, 1));
}
