// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

/// Every expert whose probability is at least `minimum`: between none and all of them. One whose probability is NaN
/// is chosen too, so that it shows in the output.
struct threshold {
  double minimum;

  HMOE_HOST_DEVICE constexpr threshold(double value) noexcept : minimum(value) {}
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("minimum", minimum); }
  void validate(std::size_t) const {
    require(std::isfinite(minimum), "threshold with minimum = ", minimum, ": it must be finite");
  }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> row,
                                                    vector_view<index_t> chosen) const noexcept {
    std::size_t count = 0;
    for (index_t i = 0; i < row.size(); ++i)
      if (!(static_cast<double>(row[i]) < minimum))
        chosen[count++] = i;
    return count;
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
