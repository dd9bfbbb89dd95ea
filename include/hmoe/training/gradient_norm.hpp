// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/parameter.hpp>

#include <cmath>
#include <cstddef>
#include <iterator>
#include <numeric>
#include <vector>

namespace hmoe::training {

/// √Σ g² over all tensors, summed in double in a fixed order.
template <class T> [[nodiscard]] double gradient_norm(const std::vector<parameter<T>>& list) {
  constexpr std::size_t chains = 16; // a single sum would wait for each of its additions
  double sums[chains] = {};
  const auto add = [&](const T* from, std::size_t count) {
    for (std::size_t c = 0; c < count; ++c)
      sums[c] += static_cast<double>(from[c]) * static_cast<double>(from[c]);
  };
  for (const parameter<T>& p : list) {
    const std::size_t size = p.gradient.size(), whole = size / chains * chains;
    for (std::size_t i = 0; i < whole; i += chains)
      add(p.gradient.data() + i, chains);
    add(p.gradient.data() + whole, size - whole);
  }
  return std::sqrt(std::accumulate(std::begin(sums), std::end(sums), 0.0));
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

#include <hmoe/core/macros_on.hpp>
