// SPDX-License-Identifier: MIT
// expect: hmoe::routing::scaled: Weighting::backward does not take computed values: make it a template
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/scaled.hpp>

using namespace hmoe;

struct mine {
  static void forward(vector_view<const float>, vector_view<const float>, vector_view<const index_t>,
                      vector_view<float>) {}
#ifdef HMOE_MUST_COMPILE
  template <class T, class Values>
  static void backward(vector_view<const T>, vector_view<const T>, vector_view<const index_t>, const Values&,
                       const Values&, vector_view<T>, vector_view<T>) {}
#else
  static void backward(vector_view<const float>, vector_view<const float>, vector_view<const index_t>,
                       vector_view<const float>, vector_view<const float>, vector_view<float>, vector_view<float>) {}
#endif
};

routing::router<routing::linear<float>, routing::top_k<>, routing::scaled<mine>> router(4, 4, 2);

void backward(const routing::scaled<mine>& weighting, vector_view<const float> in, vector_view<const index_t> chosen,
              vector_view<float> out) {
  weighting.backward(in, in, chosen, in, in, out, out);
}
