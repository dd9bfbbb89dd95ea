// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/gradients.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/loss_sums.cuh>

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstddef>

/// training::clip_gradient_norm on the device: sums in double, in an order that depends on the number of values only.
namespace hmoe::backends::cuda_detail {

/// partials[block] = Σ g² over every 256·256-th value.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) sum_squares(const float* gradients, std::size_t count, double* partials) {
  static_assert(Threads == loss_threads);
  double sum = 0;
  for (std::size_t i = std::size_t{blockIdx.x} * Threads + threadIdx.x; i < count; i += norm_blocks * Threads)
    sum += static_cast<double>(gradients[i]) * static_cast<double>(gradients[i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0)
    partials[blockIdx.x] = sum;
}
/// *total += Σ partials
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4) add_partials(const double* partials, double* total) {
  static_assert(Threads == loss_threads);
  const double sum = block_sum_of(norm_blocks, [&](index_t i) { return partials[i]; });
  if (threadIdx.x == 0)
    *total += sum;
}
/// g *= most / √*squares where √*squares is above `most`; g = 0 where it is not finite.
template <unsigned Threads>
__global__ void __launch_bounds__(Threads, 4)
    scale_gradients(float* gradients, std::size_t count, const double* squares, double most, device_status* status) {
  const double norm = std::sqrt(*squares);
  const bool finite = isfinite(norm);
  if (finite && norm <= most)
    return;
  if (!finite && blockIdx.x == 0 && threadIdx.x == 0)
    atomicMax(&status->non_finite_gradient, 1U);
  const auto scale = static_cast<float>(most / norm);
  const std::size_t threads = std::size_t{gridDim.x} * Threads;
  for (std::size_t i = std::size_t{blockIdx.x} * Threads + threadIdx.x; i < count; i += threads)
    gradients[i] = finite ? gradients[i] * scale : 0.0F;
}

inline void add_squared_norm(cudaStream_t stream, const float* gradients, std::size_t count, double* partials,
                             double* total) {
  launch{"sum_squares", stream, norm_blocks, loss_threads}(sum_squares<loss_threads>, gradients, count, partials);
  launch{"add_partials", stream, 1, loss_threads}(add_partials<loss_threads>, partials, total);
}
inline void scale_to_norm(cudaStream_t stream, unsigned blocks, float* gradients, std::size_t count,
                          const double* squares, double most, device_status* status) {
  if (count != 0)
    launch{"scale_gradients", stream, blocks, loss_threads}(scale_gradients<loss_threads>, gradients, count, squares,
                                                            most, status);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
