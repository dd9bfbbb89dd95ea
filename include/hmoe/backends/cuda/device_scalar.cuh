// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/scalar.hpp>

#include <cstdint>

/// Stored values on the device, through the conversion instructions.
namespace hmoe::backends::cuda_detail {

[[nodiscard]] __device__ inline float to_float(float value) { return value; }
[[nodiscard]] __device__ inline float to_float(bfloat16 value) { return value; }
[[nodiscard]] __device__ inline float to_float(half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

/// Two values rounded to nearest even, the first in the lower half.
template <class S> [[nodiscard]] __device__ std::uint32_t pack_pair(float first, float second);
template <> [[nodiscard]] __device__ inline std::uint32_t pack_pair<bfloat16>(float first, float second) {
  std::uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  return result;
}
template <> [[nodiscard]] __device__ inline std::uint32_t pack_pair<half>(float first, float second) {
  std::uint32_t result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  return result;
}

/// to[0], to[1] = first, second, of which `count` (may be beyond 2 or not positive) are there; in one store where `to`
/// is aligned for it.
template <class S> __device__ void store_pair(S* to, float first, float second, int count) {
  if constexpr (sizeof(S) == 2) {
    const std::uint32_t pair = pack_pair<S>(first, second);
    if (count >= 2 && reinterpret_cast<std::uintptr_t>(to) % 4 == 0) {
      *reinterpret_cast<std::uint32_t*>(to) = pair;
    } else {
      if (count >= 1)
        to[0].bits = static_cast<std::uint16_t>(pair);
      if (count >= 2)
        to[1].bits = static_cast<std::uint16_t>(pair >> 16U);
    }
  } else {
    if (count >= 2 && reinterpret_cast<std::uintptr_t>(to) % 8 == 0) {
      *reinterpret_cast<float2*>(to) = {first, second};
    } else {
      if (count >= 1)
        to[0] = first;
      if (count >= 2)
        to[1] = second;
    }
  }
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
