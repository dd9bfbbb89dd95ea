// SPDX-License-Identifier: MIT
// expect: calling a __host__ function\("favourite::.*"hmoe::.*::select_by_thread
#include <hmoe/backends/cuda/router.cuh>

using namespace hmoe;

struct favourite {
  std::size_t max_selected(std::size_t) const { return 1; }
#ifdef HMOE_MUST_COMPILE
  HMOE_HOST_DEVICE
#endif
  std::size_t operator()(vector_view<const float> p, vector_view<index_t> chosen) const {
    chosen[0] = p[0] < p[1] ? 1 : 0;
    return 1;
  }
};

void route(const routing::router<routing::linear<float>, favourite>& router) {
  backends::cuda_detail::router_forward<float>(backends::cuda_detail::view_router(router, nullptr), nullptr, 0, {}, {},
                                               nullptr, nullptr, nullptr);
}
