// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/scalar.hpp>

#include <cuda_fp16.h>

namespace hmoe::backends::cuda_detail {

/// A stored activation as a float, in one or two instructions.
[[nodiscard]] __device__ __forceinline__ float widened(float value) { return value; }
[[nodiscard]] __device__ __forceinline__ float widened(bfloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16U);
}
[[nodiscard]] __device__ __forceinline__ float widened(half value) {
  return __half2float(__ushort_as_half(value.bits));
}

} // namespace hmoe::backends::cuda_detail
