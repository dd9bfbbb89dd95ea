// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/compiler.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

namespace hmoe {

/// How many rows the experts of a call may have, where its memory is laid out before the rows are known.
struct row_limits {
  std::size_t total = 0; ///< of all experts together
  std::size_t each = 0;  ///< of any one expert
  std::size_t block = 0; ///< of an entry of the list, all entries of an expert but the last; 0: all its rows are one

  bool scatters = false; ///< they read tokens where they are and add to them, forward and backward
  bool keeps = false;    ///< forward has memory for what backward needs

  /// The longest that a list of such rows can be.
  [[nodiscard]] std::size_t entries(std::size_t experts) const noexcept {
    return block == 0 ? std::min(experts, total) : pieces(experts, block);
  }
  /// The rows of the shortest full piece, where entries are cut into even pieces of `most` rows or fewer.
  [[nodiscard]] std::size_t rows_of_piece(std::size_t most) const noexcept {
    return block == 0 ? most : block / blocks_of(block, most);
  }
  /// The most such pieces: one for each expert, which may be short, and as many full ones as the other rows make.
  [[nodiscard]] std::size_t pieces(std::size_t experts, std::size_t most) const noexcept {
    const std::size_t used = std::min(experts, total);
    return used + (total - used) / rows_of_piece(most);
  }

  /// The most that such rows can need, where a row of expert e needs amount(e): they are those of the experts that need
  /// most.
  template <class Amount> [[nodiscard]] std::size_t most(std::size_t experts, const Amount& amount) const {
    std::vector<std::size_t> amounts(experts);
    for (std::size_t e = 0; e < experts; ++e)
      amounts[e] = amount(e);
    return most_of(std::move(amounts));
  }

private:
  [[nodiscard]] std::size_t most_of(std::vector<std::size_t> amounts) const {
    std::sort(amounts.begin(), amounts.end(), std::greater<>{});
    std::size_t sum = 0, left = total;
    for (std::size_t e = 0; e < amounts.size() && left != 0; ++e) {
      const std::size_t rows = std::min(each, left);
      sum += rows * amounts[e];
      left -= rows;
    }
    return sum;
  }
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
