// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/core/config.hpp>

#include <cub/device/device_scan.cuh>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Device memory that running_sums needs for `count` values.
[[nodiscard]] inline std::size_t running_sums_bytes(std::size_t count) {
  std::size_t bytes = 0;
  require_cuda(cub::DeviceScan::InclusiveSum(nullptr, bytes, static_cast<const index_t*>(nullptr),
                                             static_cast<index_t*>(nullptr), static_cast<int>(count)),
               "scratch of a sum over ", count, " counts");
  return bytes;
}

/// sums[i] = counts[0] + … + counts[i]
inline void running_sums(const index_t* counts, index_t* sums, std::size_t count, std::byte* scratch,
                         std::size_t scratch_bytes, cudaStream_t stream) {
  if (count == 0)
    return;
  require_cuda(cub::DeviceScan::InclusiveSum(scratch, scratch_bytes, counts, sums, static_cast<int>(count), stream),
               "a sum over ", count, " counts");
}

} // namespace hmoe::backends::cuda_detail
