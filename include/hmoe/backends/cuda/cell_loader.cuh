// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/cell_decode.cuh>
#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/backends/cuda/tile_loader.cuh>
#include <hmoe/backends/cuda/tile_product.cuh>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

/// Quantised weights on their way to the tensor cores: cells are copied to shared memory as they are, in the
/// background, and each warp decodes its columns between shared memory and mma.sync.
namespace hmoe::backends::cuda_detail {

/// A step of cells: Rows rows of Depth terms.
template <class S, class Block, int Rows, int Depth> struct cell_tile {
  using cell = weight_cell<Block>;
  static constexpr int rows_of_cell = static_cast<int>(cell_rows), terms_of_cell = static_cast<int>(cell_terms);
  static constexpr int groups = Rows / rows_of_cell, cells = Depth / terms_of_cell; ///< cells of a group of 16 rows
  static constexpr int size = groups * cells * static_cast<int>(sizeof(cell) / sizeof(S));
  static_assert(Rows % rows_of_cell == 0 && Depth % terms_of_cell == 0, "a tile of quantised weights has whole cells");

  S* values;

  [[nodiscard]] __device__ const cell& at(int row, int term) const {
    return reinterpret_cast<const cell*>(values)[row / rows_of_cell * cells + term / terms_of_cell];
  }
};

template <class S, class Operand, int Rows, int Depth, int Threads> class cell_loader {
  using cell = typename Operand::value_type;
  static_assert(sizeof(S) == 2, "quantised weights are for activations in bfloat16 or half");

public:
  using tile = cell_tile<S, typename cell::block_type, Rows, Depth>;

  __device__ cell_loader(const Operand& operand, int first)
      : depth_((operand.columns + tile::terms_of_cell - 1) / tile::terms_of_cell * tile::terms_of_cell) {
    const int groups = operand.groups() - first / tile::rows_of_cell; // that there are from here on
    whole_ = groups >= tile::groups;
    const auto* from = reinterpret_cast<const char*>(operand.values) +
                       static_cast<std::size_t>(first / tile::rows_of_cell) * operand.stride * sizeof(cell);
#pragma unroll
    for (int i = 0; i < passes; ++i) {
      const int p = packet(i), group = p / run;
      const bool there = p < packets && group < groups;
      from_[i] = from + (there ? static_cast<std::size_t>(group) * operand.stride * sizeof(cell) + 16 * (p % run) : 0);
      flags_ |= there ? 1U << i : 0;
    }
  }
  __device__ void fetch(S* shared, int k) {
    char* const to = reinterpret_cast<char*>(shared) + 16 * threadIdx.x;
    const int offset = k / tile::terms_of_cell * static_cast<int>(sizeof(cell));
    if (whole_ && (tile::cells == 1 || k + Depth <= depth_)) {
#pragma unroll
      for (int i = 0; i < passes; ++i)
        if ((i + 1) * Threads <= packets || packet(i) < packets)
          copy_async(to + 16 * i * Threads, from_[i] + offset);
      return;
    }
    // Behind the end of a row, and for rows that are not there, zero: decoded, it is finite, and meets zeros of the
    // other operand or counts for no result.
#pragma unroll
    for (int i = 0; i < passes; ++i)
      if ((i + 1) * Threads <= packets || packet(i) < packets) {
        const bool there = (flags_ >> i & 1U) != 0 &&
                           k + packet(i) % run * 16 / static_cast<int>(sizeof(cell)) * tile::terms_of_cell < depth_;
        copy_async(to + 16 * i * Threads, there ? from_[i] + offset : from_[i], there ? 16 : 0);
      }
  }

private:
  static constexpr int run = tile::cells * static_cast<int>(sizeof(cell)) / 16; ///< packets of a group
  static constexpr int packets = tile::groups * run, passes = (packets + Threads - 1) / Threads;
  [[nodiscard]] __device__ static int packet(int i) { return static_cast<int>(threadIdx.x) + i * Threads; }

  const char* from_[passes];
  int depth_;          ///< terms of a row, those of its last cell included
  unsigned flags_ = 0; ///< bit i: the rows of packet i are there
  bool whole_;         ///< all rows are
};

/// The scales are read once for 32 terms.
template <class Atom, class S, class Block, int Rows, int Depth, int Blocks>
class column_fragments<Atom, cell_tile<S, Block, Rows, Depth>, Blocks> {
  using tile = cell_tile<S, Block, Rows, Depth>;
  using decoder = cell_decoder<S, Block>;
  using scale_type = typename tile::cell::scale_type;

public:
  __device__ explicit column_fragments(const tile& from)
      : tile_(from), base_(opaque_2_15(shared_address(from.values))) {}
  __device__ void load(typename Atom::b_fragment (&columns)[Blocks], int n, int k) {
    const int lane = mma_lane();
#pragma unroll
    for (int j = 0; j < Blocks; ++j) {
      const auto& cell = tile_.at(n + 16 * j, k);
      if (k % tile::terms_of_cell == 0)
        rows_[j] = rows_of(cell.scales[lane / 4]);
      const auto& from = cell.codes[k % tile::terms_of_cell / 16][lane];
      if constexpr (std::extent_v<std::remove_reference_t<decltype(from)>> == 2) {
        const uint2 both = *reinterpret_cast<const uint2*>(&from);
        const std::uint32_t codes[2]{both.x, both.y};
        decoder::decode(columns[j].words, codes, rows_[j], base_);
      } else {
        decoder::decode(columns[j].words, from, rows_[j], base_);
      }
    }
  }

private:
  using rows = typename decoder::rows;
  /// Both scales in one load.
  [[nodiscard]] __device__ static rows rows_of(const scale_type (&scales)[2]) {
    using word = std::conditional_t<sizeof(scales) == 2, std::uint16_t,
                                    std::conditional_t<sizeof(scales) == 4, std::uint32_t, std::uint64_t>>;
    static_assert(sizeof(word) == sizeof(scales));
    const word both = *reinterpret_cast<const word*>(&scales);
    scale_type values[2];
    memcpy(values, &both, sizeof values);
    return rows(values);
  }

  tile tile_;
  std::uint32_t base_;
  rows rows_[Blocks];
};

/// The loader of weights whose rows run along the sum, for products of values of S.
template <class S, class Operand, int Rows, int Depth, int Threads>
using weight_loader =
    std::conditional_t<std::is_same_v<typename Operand::value_type, S>, k_major_loader<Operand, Rows, Depth, Threads>,
                       cell_loader<S, Operand, Rows, Depth, Threads>>;

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
