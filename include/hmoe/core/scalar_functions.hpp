// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <cmath>
#include <limits>

namespace hmoe {

/// σ(z) = 1 / (1 + e^{−z}), without overflow for any z.
template <class T> [[nodiscard]] HMOE_HOST_DEVICE inline T logistic(T z) noexcept {
  if (z >= 0)
    return T(1) / (T(1) + std::exp(-z));
  const T e = std::exp(z);
  return e / (T(1) + e);
}

/// log(1 + e^z), without overflow for any z.
template <class T> [[nodiscard]] HMOE_HOST_DEVICE inline T softplus(T z) noexcept {
  const T tail = std::log1p(std::exp(z < 0 ? z : -z));
  return z < 0 ? tail : z + tail;
}

/// The smallest normal number. (Device code may use a constant, but not call std::numeric_limits.)
template <class T> inline constexpr T smallest_normal = std::numeric_limits<T>::min();

/// Whether a divisor is 0 or so small that 1 / divisor may overflow; false for NaN, which must show.
template <class T> [[nodiscard]] HMOE_HOST_DEVICE constexpr bool is_tiny(T divisor) noexcept {
  return divisor < smallest_normal<T> && -divisor < smallest_normal<T>;
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
