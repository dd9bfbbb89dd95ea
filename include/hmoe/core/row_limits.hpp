// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/compiler.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

namespace hmoe {

/// How many rows the experts of a call may have, where its memory is laid out before the rows are known.
struct row_limits {
  std::size_t total = 0; ///< of all experts together
  std::size_t each = 0;  ///< of any one expert

  /// The most that such rows can need, where a row of expert e needs amount(e): they are those of the experts that need
  /// most.
  template <class Amount> [[nodiscard]] std::size_t most(std::size_t experts, const Amount& amount) const {
    std::vector<std::size_t> amounts(experts);
    for (std::size_t e = 0; e < experts; ++e)
      amounts[e] = amount(e);
    std::sort(amounts.begin(), amounts.end(), std::greater<>{});
    std::size_t sum = 0, left = total;
    for (std::size_t e = 0; e < experts && left != 0; ++e) {
      const std::size_t rows = std::min(each, left);
      sum += rows * amounts[e];
      left -= rows;
    }
    return sum;
  }
};

} // namespace hmoe
