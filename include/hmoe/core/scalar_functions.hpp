// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>

#include <cmath>

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

} // namespace hmoe
