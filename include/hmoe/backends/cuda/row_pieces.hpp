// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/core/config.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Rows of d floats by slot (outputs of experts, gradients of what they read) are computed and added up a piece of
/// their columns at a time, so that no pass needs all [entries × d] at once. No sum runs along columns, so pieces
/// change no bit.
struct row_pieces {
  /// Columns of a piece are a multiple of these, which are a whole number of tiles.
  static constexpr std::size_t unit = 128;

  std::size_t d, columns; ///< of a row, of a piece

  /// As many columns at a time as `most` floats hold for `entries` rows, at least a unit.
  row_pieces(std::size_t entries, std::size_t row, std::size_t most) noexcept
      : d(row), columns(entries * row <= most ? row : std::min(row, std::max(unit, most / entries / unit * unit))) {}
  row_pieces() = default;

  /// Floats that pieces take; more entries never take less.
  [[nodiscard]] static std::size_t floats(std::size_t entries, std::size_t row, std::size_t most) noexcept {
    return std::min(entries * row, std::max(most, entries * unit));
  }
  template <class F> void for_each(const F& f) const {
    for (std::size_t first = 0; first < d; first += columns)
      f(column_range{static_cast<index_t>(first), static_cast<index_t>(std::min(columns, d - first))});
  }
};

} // namespace hmoe::backends::cuda_detail
