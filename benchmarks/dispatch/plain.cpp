// SPDX-License-Identifier: MIT
#include "held_experts.hpp"

namespace benchmarks {

std::unique_ptr<any_experts> make_plain_experts(const dispatch_shape& shape) {
  namespace experts = hmoe::experts;
  if (shape.experts() == shape.widths.size()) {
    auto set = make_glu_set(shape);
    return std::make_unique<held_experts<decltype(set), true>>(std::move(set));
  }
  hmoe::expert_set set{experts::glu_bank<float, experts::silu>{shape.d_model, shape.widths},
                       experts::mlp_bank<float, experts::gelu>{shape.d_model, shape.mlp_widths},
                       experts::identity_bank<float>{shape.d_model, shape.identities}};
  fill_experts(set);
  return std::make_unique<held_experts<decltype(set), true>>(std::move(set));
}

} // namespace benchmarks
