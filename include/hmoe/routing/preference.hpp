// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>
#include <limits>

namespace hmoe::routing {

/// The order that experts are preferred in: higher value first, the lower id on ties; NaN comes last.
template <class T>
[[nodiscard]] HMOE_HOST_DEVICE constexpr bool preferred(T a, index_t id_a, T b, index_t id_b) noexcept {
  if (a != a || b != b)
    return (a != a) == (b != b) ? id_a < id_b : b != b;
  return a != b ? a > b : id_a < id_b;
}

/// −∞. (Device code may use a constant, but not call std::numeric_limits.)
template <class T> inline constexpr T least_preferred = -std::numeric_limits<T>::infinity();

/// The most preferred expert among those after `previous` in that order (no_index: among all), or no_index when
/// there is none. Walking on from the last choice needs neither a sort nor memory.
template <class T>
[[nodiscard]] HMOE_HOST_DEVICE constexpr index_t next_preferred(vector_view<const T> p, index_t previous) noexcept {
  index_t best = no_index;
  for (index_t i = 0; i < p.size(); ++i) {
    if (previous != no_index && !preferred(p[previous], previous, p[i], i))
      continue;
    if (best == no_index || preferred(p[i], i, p[best], best))
      best = i;
  }
  return best;
}

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
