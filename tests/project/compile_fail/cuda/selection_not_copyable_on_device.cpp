// SPDX-License-Identifier: MIT
// expect: hmoe::backends::cuda: Selection is not trivially copyable, so it cannot be an argument of a kernel
#include <hmoe/backends/cuda/device_router.hpp>

#include <vector>

using namespace hmoe;

struct favourite {
#ifdef HMOE_MUST_COMPILE
  index_t expert = 0;
#else
  std::vector<index_t> experts{0};
  index_t expert = 0;
#endif
  std::size_t operator()(vector_view<const float>, vector_view<index_t> chosen) const {
    chosen[0] = expert;
    return 1;
  }
};

std::size_t bytes(const routing::router<routing::linear<float>, favourite>& router) {
  return backends::cuda_detail::router_bytes(router);
}
