// SPDX-License-Identifier: MIT
// expect: hmoe::routing::router: Weighting lacks backward\(logits, p, chosen, w, dw, d_logits, d_p\)
#include <hmoe/routing/router.hpp>

using namespace hmoe;

struct ones {
  template <class T>
  static void forward(vector_view<const T>, vector_view<const T>, vector_view<const index_t>, vector_view<T> w) {
    for (T& value : w)
      value = 1;
  }
#ifdef HMOE_MUST_COMPILE
  template <class T, class Values>
  static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t>, const Values&,
                       const Values&, vector_view<T>, vector_view<T>) {}
#endif
};

routing::top_k_router<float, ones> router(4, 4, 2);
