// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>

namespace hmoe::backends::simd_detail {

/// How the rows of a bank and the work on them are cut; printable, one place to tune. How they are cut changes no bit.
struct work_sizes {
  std::size_t batch_bytes; ///< memory of the chunks that are in work together, where that is more than one chunk
  std::size_t least_rows;  ///< of a chunk, whatever its memory: fewer would read the weights too often
  std::size_t most_rows;   ///< of a chunk: beyond, reading the weights once more costs nothing
  std::size_t pieces;      ///< that a phase is cut into, where there are units enough: several for each worker
  std::size_t least_work;  ///< multiply-adds of a piece: below, handing it out costs more than it saves
  /// Bytes of weights of a batch, with what four rows multiply counted as reading them once more: up to that many one
  /// worker does all phases, since the others would start too late.
  std::size_t least_shared = 0;
};

/// Packed weights: 8 MB stay in a share of the last-level cache; with 96 rows, 8 blocks of 12, the kernels keep up with
/// weights that come from DRAM.
inline constexpr work_sizes packed_work_sizes{8U << 20U, 96, 1024, 64, 1U << 17U, 192U << 10U};
/// Weights as they are: a chunk also packs its weights, which takes as long as some rows, and in training it has
/// several times the memory of a row.
inline constexpr work_sizes plain_work_sizes{16U << 20U, 256, 1024, 64, 1U << 17U};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
