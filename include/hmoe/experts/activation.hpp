// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <cmath>
#include <concepts>
#include <numbers>

namespace hmoe {

/// An elementwise function with its derivative: static value(z) and derivative(z) for float and double.
template <class A>
concept activation = requires(float f, double d) {
  { A::value(f) } -> std::same_as<float>;
  { A::derivative(f) } -> std::same_as<float>;
  { A::value(d) } -> std::same_as<double>;
  { A::derivative(d) } -> std::same_as<double>;
};

namespace experts {

/// z·σ(z), σ(z) = 1/(1+e^−z) (Elfwing et al. 2017; "swish"). LLaMA-style experts use it.
struct silu {
  template <class T> HMOE_HOST_DEVICE static T value(T z) noexcept { return z / (T(1) + std::exp(-z)); }
  template <class T> HMOE_HOST_DEVICE static T derivative(T z) noexcept {
    const T sigma = T(1) / (T(1) + std::exp(-z));
    return sigma * (T(1) + z * (T(1) - sigma));
  }
};

/// z·Φ(z) with the exact normal distribution function (Hendrycks and Gimpel 2016).
struct gelu {
  template <class T> HMOE_HOST_DEVICE static T value(T z) noexcept { return z * cdf(z); }
  template <class T> HMOE_HOST_DEVICE static T derivative(T z) noexcept {
    constexpr T inv_sqrt_2pi = std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
    return cdf(z) + z * inv_sqrt_2pi * std::exp(T(-0.5) * z * z);
  }

private:
  template <class T> HMOE_HOST_DEVICE static T cdf(T z) noexcept {
    return T(0.5) * std::erfc(-z / std::numbers::sqrt2_v<T>); // erfc keeps its digits in the lower tail
  }
};

/// ½z(1 + tanh(√(2/π)(z + 0.044715 z³))), the approximation of gelu that GPT-2 and others trained with.
struct gelu_tanh {
  template <class T> HMOE_HOST_DEVICE static T value(T z) noexcept { return T(0.5) * z * (T(1) + std::tanh(inner(z))); }
  template <class T> HMOE_HOST_DEVICE static T derivative(T z) noexcept {
    const T t = std::tanh(inner(z));
    return T(0.5) * (T(1) + t) + T(0.5) * z * (T(1) - t * t) * scale<T> * (T(1) + T(3) * cubic<T> * z * z);
  }

private:
  template <class T> static constexpr T scale = std::numbers::sqrt2_v<T> * std::numbers::inv_sqrtpi_v<T>;
  template <class T> static constexpr T cubic = T(0.044715);
  template <class T> HMOE_HOST_DEVICE static T inner(T z) noexcept { return scale<T> * (z + cubic<T> * z * z * z); }
};

/// max(z, 0); the derivative at 0 is 0.
struct relu {
  template <class T> HMOE_HOST_DEVICE static constexpr T value(T z) noexcept { return z > T(0) ? z : T(0); }
  template <class T> HMOE_HOST_DEVICE static constexpr T derivative(T z) noexcept { return z > T(0) ? T(1) : T(0); }
};

/// max(z, 0)² (So et al. 2021, Primer).
struct squared_relu {
  template <class T> HMOE_HOST_DEVICE static constexpr T value(T z) noexcept { return z > T(0) ? z * z : T(0); }
  template <class T> HMOE_HOST_DEVICE static constexpr T derivative(T z) noexcept { return z > T(0) ? T(2) * z : T(0); }
};

/// z itself: makes a GLU bilinear and an MLP linear.
struct linear {
  template <class T> HMOE_HOST_DEVICE static constexpr T value(T z) noexcept { return z; }
  template <class T> HMOE_HOST_DEVICE static constexpr T derivative(T) noexcept { return T(1); }
};

} // namespace experts
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
