// SPDX-License-Identifier: MIT
// expect: hmoe::backends::cuda: Weighting is not trivially copyable, so it cannot be an argument of a kernel
#include <hmoe/backends/cuda/device_router.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include <vector>

using namespace hmoe;

struct by_table : routing::raw {
#ifndef HMOE_MUST_COMPILE
  std::vector<float> table{};
#endif
};

std::size_t bytes(const routing::router<routing::linear<float>, routing::top_k<2>, by_table>& router) {
  return backends::cuda_detail::router_bytes(router);
}
