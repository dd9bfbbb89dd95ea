// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/weight_cell.hpp>
#include <hmoe/core/config.hpp>

#include <cstddef>
#include <cstdint>

/// Operands in global memory, as the loaders read them: row(r) is where row r starts, or null where it counts as zeros;
/// `columns` values of it are there. aligned(): every packet of 16 bytes of a row lies at a multiple of 16.
namespace hmoe::backends::cuda_detail {

template <class S> [[nodiscard]] __device__ bool is_aligned(const S* values, std::size_t stride) {
  return (reinterpret_cast<std::uintptr_t>(values) | stride * sizeof(S)) % 16 == 0;
}

/// Rows of an expert's slots first … first + count − 1.
template <class S> struct slot_rows {
  using value_type = S;
  row_source<S> source;
  index_t first;
  int count, columns;

  [[nodiscard]] __device__ const S* row(int r) const {
    if (r >= count)
      return nullptr;
    const index_t slot = first + static_cast<index_t>(r);
    const index_t from = source.index != nullptr ? source.index[slot] : slot;
    return from == no_index ? nullptr : source.rows + from * source.stride;
  }
  [[nodiscard]] __device__ const S* base() const { return source.rows; }
  [[nodiscard]] __device__ bool aligned() const { return is_aligned(source.rows, source.stride); }
};

/// The row of one slot.
template <class S> [[nodiscard]] __device__ const S* row_of(const row_source<S>& source, index_t slot) {
  return source.rows + (source.index == nullptr ? slot : source.index[slot]) * source.stride;
}

/// Rows of a matrix.
template <class Value> struct matrix_rows {
  using value_type = Value;
  const Value* values;
  std::size_t stride;
  int count, columns;

  [[nodiscard]] __device__ const Value* row(int r) const {
    return r < count ? values + static_cast<std::size_t>(r) * stride : nullptr;
  }
  [[nodiscard]] __device__ const Value* base() const { return values; }
  [[nodiscard]] __device__ bool aligned() const { return is_aligned(values, stride); }
};

/// The rows of W_in with the lanes interleaved: eight gate rows, the up rows of the same eight hidden units, and so on.
/// So the sums of both meet in one thread (see mma.cuh).
template <std::size_t Lanes, class Value> struct lane_rows {
  using value_type = Value;
  static_assert(Lanes == 1 || Lanes == 2);
  const Value* values;
  std::size_t stride;
  int width, columns;

  [[nodiscard]] __device__ static constexpr int unit_of(int r) { return Lanes == 1 ? r : r / 16 * 8 + r % 8; }
  [[nodiscard]] __device__ const Value* row(int r) const {
    const int lane = Lanes == 1 ? 0 : r / 8 % 2, unit = unit_of(r);
    return unit < width ? values + static_cast<std::size_t>(lane * width + unit) * stride : nullptr;
  }
  [[nodiscard]] __device__ const Value* base() const { return values; }
  [[nodiscard]] __device__ bool aligned() const { return is_aligned(values, stride); }
};

/// The same in cells: `stride` of them from 16 rows to the next 16, which are those of a tile with lanes interleaved.
template <class Block> struct matrix_rows<weight_cell<Block>> {
  using value_type = weight_cell<Block>;
  const value_type* values;
  std::size_t stride;
  int count, columns;

  [[nodiscard]] __device__ int groups() const { return (count + 15) / 16; }
};
template <std::size_t Lanes, class Block> struct lane_rows<Lanes, weight_cell<Block>> {
  using value_type = weight_cell<Block>;
  static constexpr int units = 16 / static_cast<int>(Lanes); ///< hidden units of 16 rows
  const value_type* values;
  std::size_t stride;
  int width, columns;

  [[nodiscard]] __device__ static constexpr int unit_of(int r) { return lane_rows<Lanes, float>::unit_of(r); }
  [[nodiscard]] __device__ int groups() const { return (width + units - 1) / units; }
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
