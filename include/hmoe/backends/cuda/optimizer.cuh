// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_ffn.hpp>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/optimizer.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Counts a step and writes its numbers, which are the same for every parameter.
template <optimizer_kind Kind>
__global__ void begin_step(optimizer_rule rule, step_rate given, optimizer_progress* progress) {
  const double rate = given.on_device != nullptr ? *given.on_device : given.value;
  const auto count = static_cast<double>(++progress->steps);
  if constexpr (Kind == optimizer_kind::adamw) {
    progress->rate = static_cast<float>(rate / (1 - pow(rule.beta1, count)));
    progress->root_scale = static_cast<float>(1 / sqrt(1 - pow(rule.beta2, count)));
    progress->keep = static_cast<float>(1 - rate * rule.weight_decay);
  } else {
    progress->rate = static_cast<float>(rate);
  }
}

/// One tensor in an optimiser's hands.
template <class S> struct optimized_tensor {
  device_tensor<S> stored;
  const float* gradient;
  float *first, *second;
};

/// The value of element j as the optimiser keeps it, in float.
template <class S> __device__ float& kept_value(const device_tensor<S>& tensor, std::size_t j) {
  if constexpr (std::same_as<S, float>)
    return tensor.values != nullptr ? tensor.values[j] : tensor.floats[j];
  else
    return tensor.values != nullptr ? tensor.masters[j] : tensor.floats[j];
}

/// The formulas of training::adamw and training::sgd. The padding behind rows has gradient 0 and stays 0.
template <optimizer_kind Kind, class S>
__global__ void __launch_bounds__(256)
    optimizer_kernel(optimized_tensor<S> tensor, optimizer_rule rule, const optimizer_progress* progress) {
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  const float rate = progress->rate, beta1 = static_cast<float>(rule.beta1);
  for (std::size_t j = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; j < tensor.stored.size; j += threads) {
    float& value = kept_value(tensor.stored, j);
    const float g = tensor.gradient[j];
    if constexpr (Kind == optimizer_kind::adamw) {
      const float beta2 = static_cast<float>(rule.beta2);
      const float m = tensor.first[j] = beta1 * tensor.first[j] + (1 - beta1) * g;
      const float v = tensor.second[j] = beta2 * tensor.second[j] + (1 - beta2) * g * g;
      const float keep = tensor.stored.decay ? progress->keep : 1.0F;
      value = keep * value - rate * m / (std::sqrt(v) * progress->root_scale + static_cast<float>(rule.epsilon));
    } else {
      const float decay = tensor.stored.decay ? static_cast<float>(rule.weight_decay) : 0.0F;
      const float velocity = tensor.first[j] = beta1 * tensor.first[j] + g + decay * value;
      value -= rate * velocity;
    }
    if constexpr (!std::same_as<S, float>)
      if (tensor.stored.values != nullptr)
        tensor.stored.values[j] = static_cast<S>(value);
  }
}

/// Blocks for a walk over `size` elements by 256 threads each.
[[nodiscard]] inline unsigned element_blocks(std::size_t size, int multiprocessors) noexcept {
  return static_cast<unsigned>(
      std::min<std::size_t>((size + 255) / 256, 8 * static_cast<std::size_t>(multiprocessors)));
}

inline void begin_optimizer_step(cudaStream_t stream, const optimizer_rule& rule, const step_rate& rate,
                                 optimizer_progress* progress) {
  const launch by{"begin_step", stream, 1, 1};
  if (rule.kind == optimizer_kind::adamw)
    by(begin_step<optimizer_kind::adamw>, rule, rate, progress);
  else
    by(begin_step<optimizer_kind::sgd>, rule, rate, progress);
}
template <class S>
void optimize(cudaStream_t stream, int multiprocessors, const optimized_tensor<S>& tensor, const optimizer_rule& rule,
              const optimizer_progress* progress) {
  if (tensor.stored.size == 0)
    return;
  const launch by{"optimizer", stream, element_blocks(tensor.stored.size, multiprocessors), 256};
  if (rule.kind == optimizer_kind::adamw)
    by(optimizer_kernel<optimizer_kind::adamw, S>, tensor, rule, progress);
  else
    by(optimizer_kernel<optimizer_kind::sgd, S>, tensor, rule, progress);
}

/// masters[j] = values[j], where there are masters.
template <class S> __global__ void __launch_bounds__(256) widen_masters(device_tensor<S> tensor) {
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t j = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; j < tensor.size; j += threads)
    tensor.masters[j] = to_float(tensor.values[j]);
}
template <class S> void fill_masters(cudaStream_t stream, int multiprocessors, const device_tensor<S>& tensor) {
  if (tensor.masters != nullptr && tensor.size != 0)
    launch{"widen_masters", stream, element_blocks(tensor.size, multiprocessors), 256}(widen_masters<S>, tensor);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
