// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/glu.hpp>

#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// The experts of gpt-oss: a glu_bank with the clamped gate and biases,
///   expert_e(x) = W_o ((u' + 1) ⊙ g' ⊙ σ(α g')) + b_o,  g' = min(W_g x + b_g, limit),  u' = clamp(W_p x + b_p,
///   ±limit),
/// limit 7 and α = 1.702 unless given. Checkpoints keep gate and up in one transposed tensor gate_up_proj [E, d, 2h]
/// with its columns interleaved, gate in the even and up in the odd ones (the same in gate_up_proj_bias [E, 2h]), and
/// down_proj [E, h, d] transposed: to load one, column 2i goes to row i of gate(e), column 2i + 1 to row i of up(e),
/// and down(e) is the transpose.
template <float_or_double T> class gpt_oss_glu_bank : public glu_bank<T, gpt_oss_gate> {
public:
  /// Zeros, in memory of the given resource.
  gpt_oss_glu_bank(std::size_t d_model, const std::vector<std::size_t>& widths, gpt_oss_gate gate = {},
                   biases bias = biases::all, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : glu_bank<T, gpt_oss_gate>(d_model, widths, bias, gate, memory) {}
  /// On the caller's weights, see glu_bank.
  explicit gpt_oss_glu_bank(ffn_weights<T, 2> weights, gpt_oss_gate gate = {})
      : glu_bank<T, gpt_oss_gate>(std::move(weights), gate) {}
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
