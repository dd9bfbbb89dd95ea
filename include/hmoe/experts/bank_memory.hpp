// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::experts {

/// What a backend's forward_bank and backward_bank may take from the workspace: they cut their rows into chunks and
/// take as many chunks at a time as the budget has room for.
struct bank_memory {
  static constexpr std::size_t budget = 16U << 20U; ///< bytes of the chunks at a time, where that is more than one
  static constexpr std::size_t least_rows = 256;    ///< of a chunk, whatever the budget
  static constexpr std::size_t slack = 16;          ///< rows that a chunk may count beyond its own: room to round up
  static constexpr std::size_t list_bytes = 256;    ///< bytes of bookkeeping per chunk
  static constexpr std::size_t list_entries = 256;  ///< entries that belong to no chunk, as many bytes each

  /// Of a row of expert e.
  template <class Experts> [[nodiscard]] static std::size_t row_bytes(const Experts& experts, std::size_t e) {
    return (experts.saved_per_row(e) + 3 * (experts.scratch_per_row(e) + experts.d_model() + experts.width(e)) +
            memory_alignment) *
           sizeof(typename Experts::value_type);
  }
  /// Of `rows` rows of any experts in all.
  template <class Experts> [[nodiscard]] static std::size_t bytes(const Experts& experts, std::size_t rows) {
    std::size_t longest = 0;
    for (std::size_t e = 0; e < experts.size(); ++e)
      longest = std::max(longest, row_bytes(experts, e));
    const std::size_t all = (rows + slack * std::min(rows, experts.size())) * longest;
    const std::size_t chunks = rows / least_rows + std::min(rows, experts.size());
    return std::min(all, std::max(budget, least_rows * longest) + slack * longest) +
           (chunks + list_entries) * list_bytes;
  }
};

} // namespace hmoe::experts
