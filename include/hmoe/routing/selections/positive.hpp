// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cstddef>

namespace hmoe::routing {

/// Every expert whose score is above zero, which may be none: the experts that a ReLU router leaves on (ReMoE, Wang et
/// al. 2024, arXiv 2412.14711). Differentiable, as an expert enters with weight 0. A score that is NaN is chosen too,
/// so that it shows in the output.
struct positive {
  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> p,
                                                    vector_view<index_t> chosen) const noexcept {
    std::size_t count = 0;
    for (index_t i = 0; i < p.size(); ++i)
      if (!(p[i] <= 0))
        chosen[count++] = i;
    return count;
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
