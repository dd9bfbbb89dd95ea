// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <cstddef>
#include <ostream>

namespace hmoe::backends::cuda_detail {

/// How a block of threads computes a tile of a product: m × n sums, k terms of each at a time, by warps_m × warps_n
/// warps. A warp has whole blocks of 16 × 16 sums.
struct block_shape {
  int m, n, k;
  int warps_m, warps_n;
  int blocks; ///< on a multiprocessor at once; the compiler keeps registers low enough for that

  [[nodiscard]] HMOE_HOST_DEVICE constexpr int threads() const noexcept { return 32 * warps_m * warps_n; }
  /// Shared memory of one stage of the pipeline: a step of both operands.
  [[nodiscard]] HMOE_HOST_DEVICE constexpr int stage_bytes(int value_bytes) const noexcept {
    return (m + n) * k * value_bytes;
  }
  friend std::ostream& operator<<(std::ostream& out, const block_shape& s) {
    return out << s.m << 'x' << s.n << 'x' << s.k << ", warps " << s.warps_m << 'x' << s.warps_n << ", " << s.blocks
               << " blocks";
  }
};

/// Tiles for experts with many rows, for few (a warp then has all rows and a part of the columns), and for so many that
/// what is read from L2 counts more than rows that are not there.
struct block_shapes {
  block_shape many, few, most;
};

/// The tiles for products of values of S. None of these figures has been measured on a GPU yet: they follow from
/// counting.
template <class S> [[nodiscard]] constexpr block_shapes product_tiles() noexcept {
  if constexpr (sizeof(S) == 2)
    return {
        // A warp has 64 × 64 sums, 128 registers of a thread: 32 mma.sync for 8 ldmatrix.x4 in each step of 16, so
        // shared memory is busy less than half of the time. Two blocks hide each other's barriers, and leave 255
        // registers to a thread; eight warps of 64 × 32 sums would have 128, which spilled a few. 64 multiply-adds
        // per value that is read from L2.
        {128, 128, 32, 2, 2, 2},
        // Few rows: reading weights is the limit, so steps are long (128 bytes of a row) and blocks are small and many.
        {32, 64, 64, 1, 4, 3},
        // The warps of `many`, eight of them in one block: three quarters of the bytes from L2 for the same products,
        // and half of what is written to shared memory for B. One block has nothing beside it at the ends of tiles.
        {256, 128, 32, 4, 2, 1}};
  else
    return {// 64 sums in a thread. The operands of 256 multiply-adds, or of two steps of tf32, take 64 registers
            // and more: one block. A step is 64 bytes of a row.
            {128, 128, 16, 2, 4, 1},
            {32, 64, 32, 1, 4, 3},
            {128, 128, 16, 2, 4, 1}}; // 128 sums beside such operands do not fit into 255 registers
}

/// From how many rows per expert, on average over what the capacity allows, the large tiles pay: below, more than half
/// of their arithmetic would be on rows that are not there.
inline constexpr std::size_t rows_for_large_tiles = 64;

/// From how many rows per expert the largest tiles pay on 9.0 and 10.x, where the L2 cache is the limit of the large
/// ones: on average half a tile of an expert's rows is empty, so that they multiply (512 + 128) / (512 + 64) = 1.11
/// times as much, for .83 of the bytes. On 8.x the tensor cores are the limit of both
/// (docs/backends/cuda_kernels.md counts).
inline constexpr std::size_t rows_for_largest_tiles = 512;

/// Tiles of products. A token has the same bits with each.
enum class tile_size {
  automatic, ///< by the rule of chosen_tiles
  small,     ///< block_shapes::few
  large,     ///< block_shapes::many
  largest    ///< block_shapes::most, and `large` for quantised weights
};

/// The tiles for products of `rows` rows of `experts` experts, all of at least `columns` columns. There must be several
/// of the largest tiles for each multiprocessor, or some have one more than others.
[[nodiscard]] constexpr tile_size chosen_tiles(int compute_capability, int multiprocessors, std::size_t rows,
                                               std::size_t experts, std::size_t columns) noexcept {
  if (rows < rows_for_large_tiles * experts)
    return tile_size::small;
  const bool bound_by_l2 = compute_capability >= 90 && compute_capability < 110;
  const std::size_t tiles = rows / 256 * ((columns + 127) / 128);
  return bound_by_l2 && rows >= rows_for_largest_tiles * experts &&
                 tiles >= 4 * static_cast<std::size_t>(multiprocessors)
             ? tile_size::largest
             : tile_size::large;
}

/// Shared memory of a multiprocessor in bytes (CUDA C++ Programming Guide, technical specifications per compute
/// capability).
[[nodiscard]] constexpr int shared_memory_of(int compute_capability) noexcept {
  switch (compute_capability) {
  case 80:
  case 87:
    return 164 * 1024;
  case 90:
  case 100:
  case 103:
  case 110:
    return 228 * 1024;
  default:
    return 100 * 1024; // 8.6, 8.9, 12.x have that; an unknown one has at least that
  }
}

/// Stages of the pipeline from global to shared memory: as many as fit beside the other blocks of the multiprocessor,
/// each of which costs 1 KiB more. More than four hide nothing more: three steps in flight are
/// 3 · 16 KiB · 2 blocks = 96 KiB a multiprocessor, above the product of latency (about 1 µs) and its share of DRAM
/// bandwidth (19 KB/µs on an A100, 25 KB/µs on an H100).
[[nodiscard]] constexpr int pipeline_stages(int compute_capability, const block_shape& shape,
                                            int value_bytes) noexcept {
  const int room = shared_memory_of(compute_capability) / shape.blocks - 1024 - 256;
  const int stages = room / shape.stage_bytes(value_bytes);
  return stages < 2 ? 2 : stages > 4 ? 4 : stages;
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
