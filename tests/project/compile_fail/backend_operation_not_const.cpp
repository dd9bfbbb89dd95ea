// SPDX-License-Identifier: MIT
// expect: hmoe: the backend's add_scaled does not fit: expected is `void add_scaled\(T weight
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

struct counting : backends::reference {
#ifdef HMOE_MUST_COMPILE
  template <class T>
  void add_scaled(T weight, vector_view<const T> from, vector_view<T> to) const {
#else
  template <class T> void add_scaled(T weight, vector_view<const T> from, vector_view<T> to) {
#endif
      for (std::size_t i = 0; i < to.size(); ++i) to[i] += weight * from[i];
}
}
;

void run(const moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>,
                         dispatch::looped>& layer,
         matrix_view<const float> x, matrix_view<float> y) {
  layer.forward(context{counting{}}, x, y);
}
