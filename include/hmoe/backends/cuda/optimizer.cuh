// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_ffn.hpp>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/optimizer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// One tensor in an optimiser's hands. With S = float, `kept` is null and the values are `stored` or `floats` itself.
template <class S> struct optimized_tensor {
  device_tensor<S> stored;
  const float* gradient;
  float *first, *second, *kept;
};

/// The value of element j as the optimiser keeps it: in float, at the first step as it is stored.
template <class S> __device__ float& kept_value(const optimized_tensor<S>& tensor, std::size_t j, bool first_step) {
  if constexpr (std::same_as<S, float>) {
    return tensor.stored.values != nullptr ? tensor.stored.values[j] : tensor.stored.floats[j];
  } else {
    if (tensor.stored.values == nullptr)
      return tensor.stored.floats[j];
    if (first_step)
      tensor.kept[j] = to_float(tensor.stored.values[j]);
    return tensor.kept[j];
  }
}

/// The formulas of training::adamw and training::sgd. The padding behind rows has gradient 0 and stays 0.
template <optimizer_kind Kind, class S>
__global__ void __launch_bounds__(256)
    optimizer_kernel(optimized_tensor<S> tensor, optimizer_step rule, bool first_step) {
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t j = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; j < tensor.stored.size; j += threads) {
    float& value = kept_value(tensor, j, first_step);
    const float g = tensor.gradient[j];
    if constexpr (Kind == optimizer_kind::adamw) {
      const float m = tensor.first[j] = rule.beta1 * tensor.first[j] + (1 - rule.beta1) * g;
      const float v = tensor.second[j] = rule.beta2 * tensor.second[j] + (1 - rule.beta2) * g * g;
      const float keep = tensor.stored.decay ? rule.keep : 1.0F;
      value = keep * value - rule.rate * m / (std::sqrt(v) * rule.root_scale + rule.epsilon);
    } else {
      const float decay = tensor.stored.decay ? rule.decay : 0.0F;
      const float velocity = tensor.first[j] = rule.beta1 * tensor.first[j] + g + decay * value;
      value -= rule.rate * velocity;
    }
    if constexpr (!std::same_as<S, float>)
      if (tensor.stored.values != nullptr)
        tensor.stored.values[j] = static_cast<S>(value);
  }
}

template <class S>
void optimize(cudaStream_t stream, int multiprocessors, const optimized_tensor<S>& tensor, const optimizer_step& rule,
              bool first_step) {
  if (tensor.stored.size == 0)
    return;
  const auto blocks = static_cast<unsigned>(
      std::min<std::size_t>((tensor.stored.size + 255) / 256, 8 * static_cast<std::size_t>(multiprocessors)));
  if (rule.kind == optimizer_kind::adamw)
    optimizer_kernel<optimizer_kind::adamw><<<blocks, 256, 0, stream>>>(tensor, rule, first_step);
  else
    optimizer_kernel<optimizer_kind::sgd><<<blocks, 256, 0, stream>>>(tensor, rule, first_step);
  require_launched("optimizer");
}

} // namespace hmoe::backends::cuda_detail
