// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>

#include <cmath>
#include <vector>

namespace hmoe::training {

/// √Σ g² over all tensors, summed in double in a fixed order.
template <class T> [[nodiscard]] double gradient_norm(const std::vector<parameter<T>>& list) {
  double sum = 0;
  for (const parameter<T>& p : list)
    for (const T g : p.gradient)
      sum += static_cast<double>(g) * static_cast<double>(g);
  return std::sqrt(sum);
}

/// Scales all gradients by max_norm / norm when their norm is above max_norm (Pascanu et al. 2013); returns the norm
/// from before. Throws, and changes nothing, when the norm is not finite.
template <class T> double clip_gradient_norm(const std::vector<parameter<T>>& list, double max_norm) {
  require(max_norm > 0, "clip_gradient_norm needs max_norm > 0, given is ", max_norm);
  const double norm = gradient_norm(list);
  require(std::isfinite(norm), "the gradient norm is ", norm, ": training has diverged");
  if (norm > max_norm) {
    const auto scale = static_cast<T>(max_norm / norm);
    for (const parameter<T>& p : list)
      for (T& g : p.gradient)
        g *= scale;
  }
  return norm;
}

} // namespace hmoe::training
