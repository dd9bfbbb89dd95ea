// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/tuning.hpp>
#include <hmoe/core/scalar.hpp>

/// Products have the small tiles only. With so few tokens the large ones would be built, at length, for the gradients
/// of weights alone; ffn_forward.cu, ffn_backward.cu and layer.cu have both.
namespace hmoe::backends::cuda_detail {
template <> constexpr block_shapes product_tiles<float>() noexcept {
  return {{32, 64, 32, 1, 4, 3}, {32, 64, 32, 1, 4, 3}, {32, 64, 32, 1, 4, 3}};
}
template <> constexpr block_shapes product_tiles<bfloat16>() noexcept {
  return {{32, 64, 64, 1, 4, 3}, {32, 64, 64, 1, 4, 3}, {32, 64, 64, 1, 4, 3}};
}
template <> constexpr block_shapes product_tiles<half>() noexcept {
  return {{32, 64, 64, 1, 4, 3}, {32, 64, 64, 1, 4, 3}, {32, 64, 64, 1, 4, 3}};
}
} // namespace hmoe::backends::cuda_detail
