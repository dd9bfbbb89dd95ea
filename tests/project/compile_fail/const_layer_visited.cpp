// SPDX-License-Identifier: MIT
// expect: hmoe: visit_parameters of a const object: its visitor is called with \(const parameter_info&, matrix_view<const T>\)
#include <hmoe/backends/reference.hpp>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using view_type = matrix_view<const float>;
#else
using view_type = matrix_view<float>;
#endif

void run(const moe_layer<expert_set<experts::glu_bank<float, experts::silu>>, routing::top_k_router<float>>& layer) {
  layer.visit_parameters([](const parameter_info&, view_type) {});
}
