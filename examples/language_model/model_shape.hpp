// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <cstddef>

namespace language_model {

/// Sizes of a decoder; the defaults are "model S" (with 512 tokens of vocabulary).
struct model_shape {
  std::size_t d_model = 64;
  std::size_t blocks = 2;
  std::size_t heads = 2;
  std::size_t context = 128;
  std::size_t vocabulary = 512;

  friend bool operator==(const model_shape&, const model_shape&) = default;
};

inline void validate(const model_shape& shape) {
  hmoe::require(shape.d_model > 0 && shape.blocks > 0 && shape.heads > 0 && shape.context > 0,
                "a model needs at least one of everything: d_model ", shape.d_model, ", blocks ", shape.blocks,
                ", heads ", shape.heads, ", context ", shape.context);
  hmoe::require(shape.heads <= shape.d_model / 2 && shape.d_model % (2 * shape.heads) == 0, "d_model ", shape.d_model,
                " does not divide into ", shape.heads,
                " heads of even size, which rotary positions need: change --d-model or --heads");
}

/// Parameters outside the feed-forward layers: embedding and head, attention, norms.
constexpr std::size_t parameters_without_experts(const model_shape& s) {
  return 2 * s.vocabulary * s.d_model + s.blocks * (4 * s.d_model * s.d_model + 2 * s.d_model) + s.d_model;
}

/// Parameters of experts (SwiGLU: three d × width matrices) whose widths add up to `width`.
constexpr double expert_parameters(const model_shape& s, double width) {
  return 3.0 * static_cast<double>(s.d_model) * width;
}

/// Training FLOPs of one token apart from its experts, given the weights of all routers. A training step costs three
/// forward passes; a forward pass costs two FLOPs per weight, and the attention matrix half of its square because of
/// the causal mask.
constexpr double base_flops_per_token(const model_shape& s, std::size_t router_weights) {
  const std::size_t weights = s.blocks * 4 * s.d_model * s.d_model + router_weights + s.d_model * s.vocabulary;
  const std::size_t attention_matrix = s.blocks * 2 * s.context * s.d_model;
  return 3.0 * static_cast<double>(2 * weights + attention_matrix);
}

/// Training FLOPs that the experts of one token add, given the sum of its activated widths over all blocks.
constexpr double expert_flops(const model_shape& s, double activated_width) {
  return 3.0 * 2.0 * expert_parameters(s, activated_width);
}

} // namespace language_model
