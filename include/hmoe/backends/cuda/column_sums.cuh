// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/backends/cuda/schedule.cuh>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

inline constexpr unsigned column_sum_lanes = 8;

/// Gradients of biases: sums[i][c] += Σ over the rows of expert i of weight · its column c. A block has 32 columns of
/// an expert, each of its warps every eighth row; their sums are added in order. What order that is depends on the rows
/// only.
template <class S>
__global__ void __launch_bounds__(32 * column_sum_lanes)
    sum_columns(bank_rows bank, row_source<S> source, slot_weights weights, extent columns, float* sums,
                const std::size_t* offsets, std::size_t stride) {
  __shared__ float parts[column_sum_lanes][32];
  const index_t i = blockIdx.y, rows = bank.rows(i), count = columns.of(rows, bank.width(i));
  const index_t c = blockIdx.x * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
  if (rows == 0 || blockIdx.x * 32 >= count)
    return;
  float sum = 0;
  if (c < count) {
    const slot_rows<S> from{source, bank.first(i), static_cast<int>(rows), static_cast<int>(count)};
    for (index_t r = lane; r < rows; r += column_sum_lanes)
      if (const S* row = from.row(static_cast<int>(r)); row != nullptr)
        sum = fmaf(weights.of(bank.first(i) + r), to_float(row[c]), sum);
  }
  parts[lane][threadIdx.x % 32] = sum;
  __syncthreads();
  if (lane != 0 || c >= count)
    return;
  for (unsigned l = 1; l < column_sum_lanes; ++l)
    sum += parts[l][threadIdx.x];
  sums[(offsets != nullptr ? offsets[i] : i * stride) + c] += sum;
}

/// For all experts of a bank; `most_columns` is a bound for the host.
template <class S>
void add_column_sums(cudaStream_t stream, const bank_rows& bank, const row_source<S>& source,
                     const slot_weights& weights, const extent& columns, std::size_t most_columns, float* sums,
                     const std::size_t* offsets, std::size_t stride) {
  if (most_columns == 0)
    return;
  const dim3 grid(static_cast<unsigned>((most_columns + 31) / 32), bank.experts);
  launch{"sum_columns", stream, grid, 32 * column_sum_lanes}(sum_columns<S>, bank, source, weights, columns, sums,
                                                             offsets, stride);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
