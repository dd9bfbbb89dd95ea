// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/gating.hpp>

#include <type_traits>

/// What the ends of tiles compute for each hidden unit. 16-bit layers round it afterwards, by 2⁻⁹ (bfloat16) or 2⁻¹²
/// (half), so silu takes the approximations of the hardware there: relative error below 2⁻¹⁷ of the value, absolute
/// error below 2⁻¹⁷ of the derivative, for |z| ≤ 87; beyond, the sigmoid is 0 or 1 in float. Other gates, and layers
/// over float, compute what the host does.
namespace hmoe::backends::cuda_detail {

struct quick_silu {
  /// 1 / (1 + e⁻ᶻ)
  [[nodiscard]] __device__ static float sigmoid(float z) {
    float power, result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(z * -1.44269504088896F));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0F + power));
    return result;
  }
  [[nodiscard]] __device__ static float value(float z) { return z * sigmoid(z); }
  [[nodiscard]] __device__ static float derivative(float z) {
    const float sigma = sigmoid(z);
    return sigma * (1.0F + z * (1.0F - sigma));
  }
};

/// experts::gated<experts::silu>
struct quick_silu_gate {
  [[nodiscard]] __device__ static float value(float g, float u) { return quick_silu::value(g) * u; }
  __device__ static void backward(float g, float u, float da, float& dg, float& du) {
    const float sigma = quick_silu::sigmoid(g);
    dg = da * u * (sigma * (1.0F + g * (1.0F - sigma)));
    du = da * (g * sigma);
  }
};

/// The form of a gate or an activation at the end of tiles of S.
template <class S, class Gate> [[nodiscard]] __device__ auto epilogue_of(const Gate& gate) {
  if constexpr (sizeof(S) == 2 && std::is_same_v<Gate, experts::gated<experts::silu>>)
    return quick_silu_gate{};
  else if constexpr (sizeof(S) == 2 && std::is_same_v<Gate, experts::silu>)
    return quick_silu{};
  else
    return gate;
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
