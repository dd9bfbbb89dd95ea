// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/error.hpp>

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace hmoe::backends::cuda_detail {

/// Starts a kernel:
///   launch{"combine_rows", stream, blocks, threads}(combine_rows<float>, assigned, slots, …);
/// Throws when it could not be started. The error is that of this launch: one that somebody else's call left behind
/// (cudaGetLastError) is neither reported nor cleared.
struct launch {
  const char* name; ///< for the message
  cudaStream_t stream;
  dim3 grid, block;
  std::size_t shared_bytes = 0;

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), Arguments&&... arguments) const {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    require_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch of ", name);
  }
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
