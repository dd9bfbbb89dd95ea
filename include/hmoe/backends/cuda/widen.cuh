// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/core/scalar.hpp>

namespace hmoe::backends::cuda_detail {

/// A stored activation as a float, in one or two instructions.
[[nodiscard]] __device__ __forceinline__ float widened(float value) { return value; }
[[nodiscard]] __device__ __forceinline__ float widened(bfloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16U);
}
[[nodiscard]] __device__ __forceinline__ float widened(half value) { return to_float(value); }

} // namespace hmoe::backends::cuda_detail
