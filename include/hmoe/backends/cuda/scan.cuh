// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/core/config.hpp>

#include <cub/block/block_load.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/block/block_store.cuh>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

inline constexpr int scan_threads = 256, scan_items = 16; ///< 4096 values at a time

/// sums[i] = counts[0] + … + counts[i], by a single block: for as many values as a batch has tokens, one launch without
/// scratch ends before a scan over the whole device has set up its own.
template <int Threads, int Items>
__global__ void __launch_bounds__(Threads, 2) add_up(const index_t* counts, index_t* sums, int count) {
  using load = cub::BlockLoad<index_t, Threads, Items, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
  using store = cub::BlockStore<index_t, Threads, Items, cub::BLOCK_STORE_WARP_TRANSPOSE>;
  using scan = cub::BlockScan<index_t, Threads>;
  __shared__ union {
    typename load::TempStorage loading;
    typename store::TempStorage storing;
    typename scan::TempStorage scanning;
  } memory;
  index_t before = 0;
  for (int first = 0; first < count; first += Threads * Items) {
    index_t values[Items], total;
    load(memory.loading).Load(counts + first, values, count - first, index_t{0});
    __syncthreads();
    scan(memory.scanning).InclusiveSum(values, values, total);
    __syncthreads();
#pragma unroll
    for (index_t& value : values)
      value += before;
    before += total;
    store(memory.storing).Store(sums + first, values, count - first);
    __syncthreads();
  }
}

inline void running_sums(const index_t* counts, index_t* sums, std::size_t count, cudaStream_t stream) {
  if (count == 0)
    return;
  launch{"add_up", stream, 1, scan_threads}(add_up<scan_threads, scan_items>, counts, sums, static_cast<int>(count));
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
