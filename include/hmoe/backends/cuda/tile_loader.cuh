// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/backends/cuda/shared_tile.cuh>

/// Loaders bring a step of an operand from global into shared memory. Each has
///   tile                    the shared_tile that it fills
///   fetch(shared, k)        starts to load the terms from k on
/// All threads of the block share the work: a thread has one packet of 16 bytes in every lines_per_pass-th row. Where
/// all of a thread's packets are there and aligned, they are copied without asking for each.
namespace hmoe::backends::cuda_detail {

/// to[0 … ] = the first `count` (maybe none or more than there is room for) values at row + first, then zeros.
/// `aligned`: in the background, and `row` must be an address; otherwise value by value.
template <class S> __device__ void copy_piece(S* to, const S* row, int first, int count, bool aligned) {
  constexpr int packet = 16 / static_cast<int>(sizeof(S));
  count = count < 0 ? 0 : count > packet ? packet : count;
  if (aligned) {
    copy_async(to, count > 0 ? row + first : row, count * static_cast<int>(sizeof(S)));
    return;
  }
  alignas(16) S values[packet];
#pragma unroll
  for (int i = 0; i < packet; ++i)
    values[i] = i < count ? row[first + i] : S{};
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(values);
}

template <class Tile, int Threads> struct loader_geometry {
  static constexpr int lines_per_pass = Threads / Tile::packets;
  static constexpr int passes = Tile::rows / lines_per_pass;
  static_assert(Threads % Tile::packets == 0 && Tile::rows % lines_per_pass == 0,
                "a tile must be a whole number of packets for each thread");
  [[nodiscard]] __device__ static int line() { return static_cast<int>(threadIdx.x) / Tile::packets; }
  [[nodiscard]] __device__ static int column() { return static_cast<int>(threadIdx.x) % Tile::packets * Tile::packet; }
};

/// The sum runs along the rows of the operand: rows first … first + Rows − 1, Depth terms.
template <class Operand, int Rows, int Depth, int Threads> class k_major_loader {
  using S = typename Operand::value_type;

public:
  using tile = shared_tile<S, Rows, Depth, true>;

  __device__ k_major_loader(const Operand& operand, int first)
      : columns_(operand.columns), flags_(operand.aligned() ? aligned_flag : 0) {
#pragma unroll
    for (int i = 0; i < geometry::passes; ++i) {
      const S* row = operand.row(first + geometry::line() + i * geometry::lines_per_pass);
      rows_[i] = row != nullptr ? row : operand.base();
      flags_ |= row != nullptr ? 1U << i : 0;
    }
  }
  __device__ void fetch(S* shared, int k) {
    const tile to{shared};
    const int from = k + geometry::column();
    if (flags_ == all_flags && k + Depth <= columns_) {
#pragma unroll
      for (int i = 0; i < geometry::passes; ++i)
        copy_async(to.at(geometry::line() + i * geometry::lines_per_pass, geometry::column()), rows_[i] + from);
      return;
    }
#pragma unroll
    for (int i = 0; i < geometry::passes; ++i)
      copy_piece(to.at(geometry::line() + i * geometry::lines_per_pass, geometry::column()), rows_[i], from,
                 (flags_ >> i & 1U) != 0 ? columns_ - from : 0, (flags_ & aligned_flag) != 0);
  }

private:
  using geometry = loader_geometry<tile, Threads>;
  static constexpr unsigned aligned_flag = 1U << 31U;
  static constexpr unsigned all_flags = aligned_flag | ((1U << geometry::passes) - 1);
  const S* rows_[geometry::passes]; ///< anywhere where the row is not there
  int columns_;
  unsigned flags_; ///< bit i: row i is there
};

/// The sum runs over the rows of the operand: columns first … first + Columns − 1, Depth rows.
template <class Operand, int Columns, int Depth, int Threads> class mn_major_loader {
  using S = typename Operand::value_type;

public:
  using tile = shared_tile<S, Depth, Columns, false>;

  __device__ mn_major_loader(const Operand& operand, int first)
      : operand_(operand), first_(first + geometry::column()), aligned_(operand.aligned()) {}
  __device__ void fetch(S* shared, int k) {
    const tile to{shared};
#pragma unroll
    for (int i = 0; i < geometry::passes; ++i) {
      const int line = geometry::line() + i * geometry::lines_per_pass;
      const S* row = operand_.row(k + line);
      copy_piece(to.at(line, geometry::column()), row != nullptr ? row : operand_.base(), first_,
                 row != nullptr ? operand_.columns - first_ : 0, aligned_);
    }
  }

private:
  using geometry = loader_geometry<tile, Threads>;
  Operand operand_;
  int first_;
  bool aligned_;
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
